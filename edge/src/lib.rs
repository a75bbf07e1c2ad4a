pub mod http;
pub mod listener;
pub mod tls;
