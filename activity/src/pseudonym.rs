//! Pseudonyms: the log, the folds and the lake know a viewer by a keyed hash of his id, and never by the id.
//!
//! The key (32 random bytes) is made once and kept beside the log, readable by its owner alone. Whoever is given the lake cannot tell who
//! somebody is, nor look for an id that he knows. Without the key, or with another one, everybody is somebody new.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _, path::Path};

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::{event::User, files};

const KEY_BYTES: usize = 32;

/// Makes pseudonyms: the first half of HMAC-SHA-256 (RFC 2104) of the id.
#[derive(Clone)]
pub(crate) struct Pseudonyms(hmac::Key);

impl Pseudonyms {
    /// Reads the key in `path`, or makes one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let key = match fs::read(path) {
            Ok(key) if key.len() == KEY_BYTES => key,
            Ok(key) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("it has {} bytes and not {KEY_BYTES}", key.len()),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = vec![0; KEY_BYTES];
                SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system has no randomness"))?;
                files::replace(path, fs::OpenOptions::new().mode(0o600), |file| io::Write::write_all(file, &key))?;
                key
            }
            Err(error) => return Err(error),
        };
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    pub(crate) fn of(&self, id: &str) -> User {
        let tag = hmac::sign(&self.0, id.as_bytes());
        User(tag.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_same_pseudonym_after_a_restart_and_another_one_elsewhere() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |dir: &tempfile::TempDir| Pseudonyms::open(&dir.path().join("key")).unwrap();
        let user = open(&here).of("ann");
        assert_eq!(open(&here).of("ann"), user);
        assert_ne!(open(&here).of("anna"), user);
        assert_ne!(open(&elsewhere).of("ann"), user);
        fs::write(here.path().join("key"), "short").unwrap();
        assert_eq!(Pseudonyms::open(&here.path().join("key")).err().unwrap().to_string(), "it has 5 bytes and not 32");
    }
}
