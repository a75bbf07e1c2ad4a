//! Control as its callers see it: real HTTP to a real control on a free port, and every answer held against `/openapi.json`.

mod activity;
mod conditions;
mod description;
mod fleet;
mod idempotency;
mod issuer;
mod keys;
mod killed;
mod lake;
mod limits;
mod link;
mod operation;
mod operators;
mod overload;
mod playback;
mod problems;
mod reference;
mod search;
mod service;
mod sites;
mod steering;
mod streams;
mod titles;
mod tokens;
mod viewers;
