//! The index from outside: a file per promise.

mod changes;
mod filters;
mod forgiving;
mod keeping;
mod pages;
mod quality;
mod ranking;
mod titles;
