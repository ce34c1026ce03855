//! setpoint-align
