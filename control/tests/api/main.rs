//! Control as its callers see it: real HTTP to a real control on a free port, and every answer held against `/openapi.json`.

mod description;
mod fleet;
mod operation;
mod playback;
mod problems;
mod service;
mod titles;
