//! The process that outlives the driver.
