//! The demo's state directory: keys, certificates, secrets and configurations, made once and used again.
//!
//! ```text
//! ca.pem edge.pem edge.key expires   a certificate authority of the demo's own, and what it issued
//! signing.jwk keys.json              control's private key, and the edges' set of public ones
//! fill.secret edge.secret operator.secret
//! origin.toml control.toml edge-a.toml edge-b.toml
//! clip.mp4 origin/ control/          the test clip, and what origin and control keep
//! lock                               held while a demo runs here
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use wire::{
    object::Digest,
    token::{Algorithm, SigningKey},
};

/// The `iss` of the demo's tokens.
pub(super) const ISSUER: &str = "larder-demo";
const SECRET_BYTES: usize = 32;
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// Certificates nearer to their end than this are made anew.
const CERTIFICATE_REST_MIN: Duration = Duration::from_secs(7 * 86_400);
/// A clock that is behind by less than this takes a new certificate.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(86_400);
/// Nobody tells when a lock is free, so it is asked for again.
const LOCK_ASKED_EVERY: Duration = Duration::from_millis(100);

/// A state directory that this demo alone uses.
pub(super) struct State {
    pub(super) dir: PathBuf,
    _lock: File,
}

impl State {
    /// Opens `dir`, or the default one, and makes what is missing in it. Waits for another demo that uses it.
    pub(super) async fn open(dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir.map_or_else(default_dir, Ok)?)?;
        let failed = || format!("cannot use the state directory {}", dir.display());
        fs::create_dir_all(&dir).with_context(failed)?;
        let lock = lock(&dir).await.with_context(failed)?;
        let state = Self { dir, _lock: lock };
        state.make_secrets().context("cannot make the demo's secrets")?;
        state.make_certificates().context("cannot make the demo's certificates")?;
        Ok(state)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes a whole file or none.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let (path, part) = (self.path(name), self.path(&format!("{name}.part")));
        let _ = fs::remove_file(&part);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&part, &path)?;
        Ok(path)
    }

    fn make_secrets(&self) -> anyhow::Result<()> {
        for name in ["fill.secret", "edge.secret", "operator.secret"] {
            if !self.path(name).exists() {
                let mut secret = [0; SECRET_BYTES];
                aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow!("the system gives no random numbers"))?;
                self.write(name, &BASE64_URL_SAFE_NO_PAD.encode(secret))?;
            }
        }
        if !(self.path("signing.jwk").exists() && self.path("keys.json").exists()) {
            let key = SigningKey::generate(Algorithm::EdDsa, "demo")?;
            self.write("keys.json", &serde_json::json!({ "keys": [key.public_jwk()] }).to_string())?;
            self.write("signing.jwk", &key.to_jwk())?;
        }
        Ok(())
    }

    /// The authority's own key is not kept: who trusts it trusts only what it issued here and now.
    fn make_certificates(&self) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let expires = self.read("expires").ok().and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        if expires.is_some_and(|expires| now + CERTIFICATE_REST_MIN < expires) {
            return Ok(());
        }
        let expires = now + CERTIFICATE_LIFETIME;
        let lasting = |mut params: CertificateParams, name: &str| {
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            params.not_before = epoch + now.saturating_sub(CLOCK_SKEW_MAX);
            params.not_after = epoch + expires;
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut authority = lasting(CertificateParams::default(), "Larder demo authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut leaf = lasting(CertificateParams::new(names)?, "Larder demo edge");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &authority)?;

        let _ = fs::remove_file(self.path("expires"));
        self.write("ca.pem", &authority.pem())?;
        self.write("edge.key", &key.serialize_pem())?;
        self.write("edge.pem", &leaf.pem())?;
        self.write("expires", &expires.as_secs().to_string())?;
        Ok(())
    }

    /// SHA-256 of the edges' public key, in base64: by this Chromium is told to trust their certificate.
    pub(super) fn spki(&self) -> anyhow::Result<String> {
        let key = KeyPair::from_pem(&self.read("edge.key")?).context("edge.key is damaged")?;
        Ok(STANDARD.encode(Digest::of(&key.subject_public_key_info()).as_bytes()))
    }

    /// Writes origin's configuration.
    pub(super) fn origin_config(&self) -> anyhow::Result<PathBuf> {
        self.config(
            "origin",
            &format!(
                "listen = \"127.0.0.1:0\"\nstate_dir = {}\nfill_token_file = {}\n",
                self.quoted("origin"),
                self.quoted("fill.secret")
            ),
        )
    }

    /// Writes control's configuration.
    pub(super) fn control_config(&self, port: u16) -> anyhow::Result<PathBuf> {
        let (state, key) = (self.quoted("control"), self.quoted("signing.jwk"));
        let (operator, edge) = (self.quoted("operator.secret"), self.quoted("edge.secret"));
        self.config(
            "control",
            &format!(
                "listen = \"127.0.0.1:{port}\"\nstate_dir = {state}\nsigning_key_file = {key}\ntoken_issuer = \"{ISSUER}\"\n\
                 operator_token_file = {operator}\nedge_token_file = {edge}\nedge_timeout = \"5s\"\n"
            ),
        )
    }

    /// Writes an edge's configuration.
    pub(super) fn edge_config(&self, edge: &EdgePlan<'_>) -> anyhow::Result<PathBuf> {
        let EdgePlan { name, port, ram_bytes, origin, control } = edge;
        let (certificate, key, keys) = (self.quoted("edge.pem"), self.quoted("edge.key"), self.quoted("keys.json"));
        let (fill, report) = (self.quoted("fill.secret"), self.quoted("edge.secret"));
        let (state, device) = (self.quoted(name), self.quoted(&format!("{name}.ssd")));
        self.config(
            name,
            &format!(
                "name = \"{name}\"\nsite = \"demo\"\nlisten = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:0\"\n\
                 public_url = \"https://127.0.0.1:{port}\"\nworkers = 2\n\
                 [tls]\ncertificate_file = {certificate}\nkey_file = {key}\n\
                 [tokens]\nkeys_file = {keys}\nissuer = \"{ISSUER}\"\n\
                 [cache]\nram = {ram_bytes}\nstate_dir = {state}\nsegment = \"8MiB\"\n\
                 devices = [{{ path = {device}, size = \"256MiB\" }}]\n\
                 [origin]\nurl = \"{origin}\"\ntoken_file = {fill}\n\
                 [control]\nurl = \"{control}\"\ntoken_file = {report}\nreport_every = \"1s\"\n\
                 [limits]\ndrain_timeout = \"2s\"\n"
            ),
        )
    }

    fn config(&self, name: &str, body: &str) -> anyhow::Result<PathBuf> {
        let role = name.split('-').next().unwrap_or(name);
        let text = format!("# Written by `larder demo` at every start.\nrole = \"{role}\"\n{body}");
        self.write(&format!("{name}.toml"), &text).with_context(|| format!("cannot write {name}.toml"))
    }

    /// A path in this directory as a TOML string.
    fn quoted(&self, name: &str) -> String {
        toml::Value::String(self.path(name).display().to_string()).to_string()
    }
}

/// What an edge of the demo is told.
pub(super) struct EdgePlan<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) ram_bytes: u64,
    /// URLs.
    pub(super) origin: &'a str,
    pub(super) control: &'a str,
}

/// Where user-specific state goes (XDG Base Directory Specification).
fn default_dir() -> anyhow::Result<PathBuf> {
    let of = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = of("XDG_STATE_HOME").or_else(|| of("HOME").map(|home| home.join(".local/state")));
    let base = base.context("neither XDG_STATE_HOME nor HOME is set; name a directory with --state")?;
    Ok(base.join("larder/demo"))
}

async fn lock(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if told => tokio::time::sleep(LOCK_ASKED_EVERY).await,
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another demo that uses {}; --state names another directory", dir.display());
                told = true;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_once_is_used_again_and_certificates_near_their_end_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["ca.pem", "edge.pem", "edge.key", "signing.jwk", "keys.json", "fill.secret"];
        let open = async || {
            let state = State::open(Some(dir.path().join("demo"))).await.unwrap();
            (names.map(|name| state.read(name).unwrap()), state.spki().unwrap())
        };
        let first = open().await;
        assert_eq!(open().await, first);
        fs::write(dir.path().join("demo/expires"), "1000").unwrap();
        let third = open().await;
        assert_ne!((&third.0[..3], &third.1), (&first.0[..3], &first.1));
        assert_eq!(third.0[3..], first.0[3..]);
    }
}
