//! setpoint-data
