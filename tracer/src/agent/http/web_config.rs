//! Reads TLS and basic authentication settings from a file in the format of Prometheus exporters
//! (`--web.config.file`).

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version,
};
use serde::Deserialize;

use crate::agent::http::auth::{HashFault, Users};

/// TLS and authentication of the HTTP server.
#[derive(Debug, Default)]
pub(crate) struct Web {
    /// The TLS configuration; `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The users; `None` disables authentication.
    pub(crate) users: Option<Users>,
}

/// A web configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error(
        "the web configuration {path} cannot be read: {error}; check its path and that this user may read it"
    )]
    Read { path: String, error: std::io::Error },
    #[error(
        "the web configuration {path} is invalid: {error}; docs/operating.md shows the format and the supported keys"
    )]
    Format { path: String, error: String },
    #[error(
        "the {what} {path} of the web configuration cannot be used: {error}; it must be readable and in PEM format"
    )]
    Pem { what: &'static str, path: String, error: String },
    #[error(
        "the certificate {certificate} and the key {key} cannot be used together: {error}; give the private key of \
         that certificate"
    )]
    Tls { certificate: String, key: String, error: rustls::Error },
    #[error(
        "the password of `{user}` in the web configuration is not a bcrypt hash; create one with \
         `htpasswd -nBC 10 {user}`"
    )]
    Hash { user: String },
    #[error(
        "the password of `{user}` in the web configuration has bcrypt cost {cost}, which is too slow to verify; create \
         a hash with `htpasswd -nBC 10 {user}`"
    )]
    Cost { user: String, cost: u32 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tls_server_config: Option<Tls>,
    basic_auth_users: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    min_version: MinVersion,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
enum MinVersion {
    #[default]
    TLS12,
    TLS13,
}

impl Web {
    /// Reads the file, its certificate and its key. Paths are relative to the file.
    pub(crate) fn read(path: &Path) -> Result<Self, WebError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| WebError::Read { path: shown.clone(), error })?;
        let file: Option<File> = serde_norway::from_str(&text)
            .map_err(|error| WebError::Format { path: shown, error: one_line(&error.to_string()) })?;
        let Some(file) = file else { return Ok(Self::default()) };
        let folder = path.parent().unwrap_or(Path::new(""));
        let users = file.basic_auth_users.filter(|users| !users.is_empty());
        Ok(Self {
            tls: file.tls_server_config.map(|tls| server_config(&tls, folder)).transpose()?.map(Arc::new),
            users: users
                .map(|users| {
                    Users::new(users).map_err(|(user, fault)| match fault {
                        HashFault::Malformed => WebError::Hash { user },
                        HashFault::Costly(cost) => WebError::Cost { user, cost },
                    })
                })
                .transpose()?,
        })
    }
}

/// Joins a multi-line library error into one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

fn server_config(tls: &Tls, folder: &Path) -> Result<ServerConfig, WebError> {
    let (certificate, key) = (folder.join(&tls.cert_file), folder.join(&tls.key_file));
    let unusable = |what, path: &Path, error: rustls::pki_types::pem::Error| WebError::Pem {
        what,
        path: path.display().to_string(),
        error: error.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable("certificate", &certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| unusable("key", &key, error))?;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
        MinVersion::TLS12 => &[&version::TLS12, &version::TLS13],
        MinVersion::TLS13 => &[&version::TLS13],
    };
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| WebError::Tls {
            certificate: certificate.display().to_string(),
            key: key.display().to_string(),
            error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Web, WebError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        fs::write(&path, text).unwrap();
        Web::read(&path)
    }

    #[test]
    fn an_empty_file_configures_nothing() {
        for text in ["", "# nothing\n", "basic_auth_users: {}\n"] {
            let web = read(text).unwrap();
            assert!(web.tls.is_none() && web.users.is_none(), "{text}");
        }
        let hash = bcrypt::hash("secret", 4).unwrap();
        assert!(read(&format!("basic_auth_users:\n  alice: {hash}\n")).unwrap().users.is_some());
    }

    #[test]
    fn errors_name_the_key_and_the_remedy() {
        for (text, parts) in [
            ("tls_server_confg: {}\n", &["tls_server_confg", "tls_server_config"][..]),
            ("tls_server_config: {cert_file: a}\n", &["key_file"]),
            ("tls_server_config: {cert_file: no.crt, key_file: no.key}\n", &["certificate", "no.crt", "PEM"]),
            ("tls_server_config: {cert_file: a, key_file: b, min_version: SSL3}\n", &["SSL3", "TLS12"]),
            ("basic_auth_users: {alice: secret}\n", &["`alice`", "htpasswd"]),
            ("basic_auth_users: [\n", &["web.yml is invalid", "docs/operating.md"]),
            ("basic_auth_users: {a: b}\n  x\n:\n", &["web.yml is invalid", "docs/operating.md"]),
            (
                "basic_auth_users: {bob: $2y$31$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW}\n",
                &["`bob`", "cost 31", "htpasswd -nBC 10 bob"],
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part} not in: {error}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = Web::read(Path::new("/no/such/web.yml")).unwrap_err().to_string();
        assert!(error.contains("/no/such/web.yml"), "{error}");
    }
}
