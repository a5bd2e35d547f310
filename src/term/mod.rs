//! What people see. Nothing here knows what a job is.

pub mod format;
pub mod table;
pub mod text;
pub mod ui;
