//! TLS without a C compiler: rustls on the pure Rust primitives of the RustCrypto project.
//!
//! The provider is the one choice of this file, so that it can be exchanged in one place. It runs on every
//! CPU (AES and SHA instructions are used where they exist) and cross-compiles with nothing but rustc.

use std::path::Path;
use std::sync::Arc;

use ureq::tls::{parse_pem, Certificate, PemItem, RootCerts, TlsConfig};

use crate::{Error, Result};

/// Trusts the roots of `certificates`, or those that come with the program.
pub(super) fn config(certificates: Option<&Path>) -> Result<TlsConfig> {
    let roots = match certificates {
        Some(path) => RootCerts::new_with_certs(&read(path)?),
        None => RootCerts::WebPki,
    };
    let provider = Arc::new(rustls_rustcrypto::provider());
    Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
}

fn read(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::malformed(path, "expected root certificates in PEM, found none"));
    }
    Ok(certificates)
}
