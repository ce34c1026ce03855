//! setpoint-reward
