//! What is measured: how it is asked for, what, and with which cipher.

use std::fmt;

/// How it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Via {
    /// HTTP/1.1 without TLS, 16 connections.
    H1,
    /// HTTP/1.1 with TLS 1.3, 16 connections.
    H1Tls,
    /// HTTP/2, 16 streams on one connection.
    H2,
    /// HTTP/3, 16 streams on one connection.
    H3Sixteen,
    /// HTTP/3, one after the other on one connection.
    H3One,
}

impl Via {
    pub(super) const ALL: [Self; 5] = [Self::H1, Self::H1Tls, Self::H2, Self::H3Sixteen, Self::H3One];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H1Tls => "h1-tls",
            Self::H2 => "h2",
            Self::H3Sixteen => "h3-16",
            Self::H3One => "h3-1",
        }
    }

    /// Requests at once.
    pub(super) const fn parallel(self) -> u32 {
        if matches!(self, Self::H3One) { 1 } else { 16 }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum ObjectSize {
    /// A playlist.
    K4,
    /// A segment of sound.
    K64,
    /// A segment of video.
    M2,
    /// A segment of the best video.
    M16,
}

impl ObjectSize {
    pub(super) const ALL: [Self; 4] = [Self::K4, Self::K64, Self::M2, Self::M16];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::K4 => "4k",
            Self::K64 => "64k",
            Self::M2 => "2m",
            Self::M16 => "16m",
        }
    }

    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::K4 => 4 << 10,
            Self::K64 => 64 << 10,
            Self::M2 => 2 << 20,
            Self::M16 => 16 << 20,
        }
    }

    /// How many there are: but for the smallest more than a processor's caches hold, so that bodies come from memory.
    pub(super) const fn distinct(self) -> u32 {
        match self {
            Self::K4 => 1000,
            Self::K64 => 2000,
            Self::M2 => 200,
            Self::M16 => 25,
        }
    }

    /// The path of one of them.
    pub(super) fn path(self, number: u32) -> String {
        format!("/files/{}/{number}", self.name())
    }
}

/// Which cipher the client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Cipher {
    /// All that it has: the server's choice.
    Own,
    /// AES-128-GCM alone.
    Aes128,
}

impl Cipher {
    pub(super) const ALL: [Self; 2] = [Self::Own, Self::Aes128];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Aes128 => "aes128",
        }
    }
}

/// One line of what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Case {
    pub(super) via: Via,
    pub(super) size: ObjectSize,
    pub(super) cipher: Cipher,
}

impl Case {
    /// Requests of one round, about two seconds' worth; wrk counts seconds instead.
    pub(super) const fn requests(self) -> u64 {
        match (self.via, self.size) {
            (Via::H3Sixteen, ObjectSize::K4 | ObjectSize::K64) => 4000,
            (Via::H3One, ObjectSize::K4 | ObjectSize::K64) => 2000,
            (Via::H3One, ObjectSize::M2) => 200,
            (Via::H3One, ObjectSize::M16) => 25,
            (_, ObjectSize::K4) => 40_000,
            (_, ObjectSize::K64) => 8000,
            (_, ObjectSize::M2) => 400,
            (_, ObjectSize::M16) => 50,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.via.name(), self.size.name(), self.cipher.name())
    }
}

/// Everything that is measured unless the command line says less.
pub(super) fn all() -> impl Iterator<Item = Case> {
    let case = |via, size, cipher| Case { via, size, cipher };
    let own = Via::ALL.into_iter().flat_map(move |via| {
        let sizes: &[ObjectSize] = match via {
            Via::H1Tls | Via::H3Sixteen => &ObjectSize::ALL,
            Via::H1 | Via::H2 | Via::H3One => &[ObjectSize::K4, ObjectSize::M2],
        };
        sizes.iter().map(move |size| case(via, *size, Cipher::Own))
    });
    own.chain([Via::H1Tls, Via::H3Sixteen, Via::H3One].map(|via| case(via, ObjectSize::M2, Cipher::Aes128)))
}
