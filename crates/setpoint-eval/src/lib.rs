//! setpoint-eval
