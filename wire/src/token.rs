//! Tokens: URI Signing for CDNI, RFC 9246. A signed JWT, the *URI Signing package*, travels in the path, the query or a cookie
//! of a request and says which URIs it opens, until when, and for whom.
//!
//! [`sign`] makes tokens, [`find`] takes them out of a request, and only [`Verifier::check`] turns one into a [`Grant`]. This
//! module knows no clock, socket or file: callers bring the time and the client's address. What always holds: the key says which
//! algorithm is used (never the token), claims are read only after the signature is good, every claim is checked on every
//! request also when the signature is remembered, and nothing that a stranger sends is kept.
//!
//! Not followed, and why:
//! * §2, §4.4: the package's name comes from CDNI metadata. Larder has no such interface; the name is its default,
//!   [`PACKAGE`]. For the same reason a header passed apart from its token (§2.2) is not known: a token has three parts.
//! * §2.1.2, §2.1.10: "this field MUST be a JSON Web Encryption". Sealed values are read and made ([`ClaimKey`]; `dir` with
//!   AES-GCM), but plain ones are accepted too: where one operator signs and serves, the address stands beside the token anyway.
//! * §2.1.7: a used `jti` is known to the edge that served it, not to others.
//! * §2.1.15.1: of the hashes of RFC 6920 only `sha-256`; truncated ones invite collisions.
//! * §5: tokens are not signed anew to redirect to another CDN. The claims' rules for that case do not arise.

mod carrier;
mod claims;
mod container;
mod ere;
mod jwe;
mod key;
mod remembered;
mod renewal;
mod replay;
mod uri;
mod verify;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rfc9246;

pub use carrier::{Carrier, Found, Presented, cookie, find, in_path, in_query};
pub use claims::{Audience, BadClaim, Claims, SignError, sign};
pub use jwe::ClaimKey;
pub use key::{Algorithm, KeyError, KeySet, SigningKey};
pub use renewal::{Renewal, Renewed, Transport};
pub use verify::{Grant, Refusal, Rules, Verifier};

/// The name of the path parameter, query parameter or cookie that carries a token (RFC 9246 §4.4, the default of
/// `package-attribute`).
pub const PACKAGE: &str = "URISigningPackage";

/// A claim of Larder's own (RFC 7519 §4.3): the most that may be sent for the token, in bits per second, all of its bearer's connections
/// together. Verifiers that do not know it must ignore it (RFC 7519 §4), so a signer that relies on it relies on edges of Larder.
pub const RATE_CLAIM: &str = "larder_bits_per_second_max";

/// The least that the claim may say. Less would starve players rather than slow them down.
pub const RATE_CLAIM_MIN: u64 = 1_000_000;

/// The longest token, in bytes. The RFC's own longest example, with two encrypted claims, has 1058.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The longest request target that is searched for a token, in bytes.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;

/// The longest `cdniuc` claim, in bytes.
pub const CONTAINER_BYTES_MAX: usize = 2048;

/// How much memory one compiled `regex:` container may take, in bytes; what would take more is refused.
pub const REGEX_BYTES_MAX: usize = 64 * 1024;

/// The longest name of a key (`kid`), in bytes.
pub const KID_BYTES_MAX: usize = 128;
