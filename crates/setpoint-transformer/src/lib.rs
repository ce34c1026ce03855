//! setpoint-transformer
