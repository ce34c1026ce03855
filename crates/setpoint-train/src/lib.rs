//! setpoint-train
