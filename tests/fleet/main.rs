//! Whole fleets and whole commands: the binary as processes, and clients that are ours, foreign, and a browser.

mod big_object;
mod browser;
mod cli;
mod control_backup;
mod demo;
mod described;
mod foreign;
mod once;
mod operators;
mod replay;
mod slow_readers;
mod ssd;
mod steering;
mod support;
mod upgrade;
