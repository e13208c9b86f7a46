//! Cold and pure: what recorded values mean. Takes values, opens no file, knows no collector.

pub mod join;
