//! Content Credentials: a signed manifest in a PNG, JPEG, WAV or GIF file (C2PA specification 2.x),
//! by the crate `c2pa`. Nothing is fetched from a network.
//!
//! ```no_run
//! use aigc_core::output::provenance::{Provenance, c2pa};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let chain = std::fs::read("signer.pem")?;
//! let key = std::fs::read("signer.key")?;
//! let signer = c2pa::Signer::from_pem(&chain, &key, c2pa::SigningAlgorithm::Es256)?;
//! let signed = c2pa::sign(&std::fs::read("cat.png")?, &Provenance::new("tiny-sd"), &signer)?;
//! let anchors = std::fs::read_to_string("anchors.pem")?;
//! let credentials = c2pa::read(&signed, Some(&anchors))?.expect("it was signed");
//! println!("{:?} by {:?}", credentials.state, credentials.signer);
//! # Ok(())
//! # }
//! ```
//!
//! The manifest has the action `c2pa.created` with the source type `trainedAlgorithmicMedia`, and
//! the [`Provenance`] as an assertion. A signature proves which certificate's holder vouches for
//! the file and that nothing of it was changed since; it does not prove that what the holder says
//! is true, and whoever wants to can remove the manifest. Certificates have to follow section 14.5
//! of the specification: an end entity with the key usage `digitalSignature` and an extended key
//! usage such as `emailProtection`, not signed by itself.
//!
//! Signatures have no time stamp, for that is a request to an authority: nothing proves that a file
//! was signed while the certificate was valid. Once it has expired, the file is
//! [`Invalid`](CredentialState::Invalid), with `signingCredential.expired` among the failures. Sign
//! again with a new certificate, or choose one that is valid for as long as the file is to be.
//!
//! A file may have a [record](super) as well: embed it first, then sign.
#![allow(clippy::result_large_err)] // errors of the crate `c2pa`, in closures for it

use super::Provenance;
use crate::{Error, Result};
use ::c2pa::{
    Builder, BuilderIntent, CallbackSigner, ClaimGeneratorInfo, Context, DigitalSourceType,
    Manifest, Reader, Settings, SigningAlg, ValidationState, assertions::Actions, create_signer,
};
use serde_json::{Value, json};
use std::{fmt, io::Cursor};

/// Label of the assertion with the [`Provenance`].
pub const ASSERTION: &str = "org.aigc.provenance";

/// Algorithms of signatures (section 13.2 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// ECDSA with SHA-256, curve P-256.
    Es256,
    /// ECDSA with SHA-384, curve P-384.
    Es384,
    /// ECDSA with SHA-512, curve P-521.
    Es512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519.
    Ed25519,
}

impl From<SigningAlgorithm> for SigningAlg {
    fn from(algorithm: SigningAlgorithm) -> Self {
        match algorithm {
            SigningAlgorithm::Es256 => Self::Es256,
            SigningAlgorithm::Es384 => Self::Es384,
            SigningAlgorithm::Es512 => Self::Es512,
            SigningAlgorithm::Ps256 => Self::Ps256,
            SigningAlgorithm::Ps384 => Self::Ps384,
            SigningAlgorithm::Ps512 => Self::Ps512,
            SigningAlgorithm::Ed25519 => Self::Ed25519,
        }
    }
}

/// A certificate and what signs in its name.
pub struct Signer {
    inner: Box<dyn ::c2pa::Signer + Send + Sync>,
    algorithm: SigningAlgorithm,
}

impl fmt::Debug for Signer {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer with a private key (PKCS #8), both in PEM. The chain begins with the signer's
    /// certificate; its root may be missing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if chain or key cannot be read, or are not for the algorithm.
    pub fn from_pem(chain: &[u8], key: &[u8], algorithm: SigningAlgorithm) -> Result<Self> {
        check_pem("chain", chain)?;
        let inner = create_signer::from_keys(chain, key, algorithm.into(), None);
        let inner = inner.map_err(|error| {
            Error::argument("key", error, format!("a private key for {algorithm:?}"))
        })?;
        Ok(Self { inner, algorithm })
    }

    /// A signer whose key is elsewhere, in a hardware module for one: `sign` returns the signature
    /// of the bytes that it is given, in the form of COSE (RFC 9053; for ECDSA, both numbers one
    /// after the other).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the chain, in PEM, is none.
    pub fn from_callback(
        chain: &[u8],
        algorithm: SigningAlgorithm,
        sign: impl Fn(&[u8]) -> Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Result<Self> {
        check_pem("chain", chain)?;
        let callback = move |_: *const (), bytes: &[u8]| {
            sign(bytes).map_err(|error| ::c2pa::Error::OtherError(Box::new(error)))
        };
        let inner = CallbackSigner::new(callback, algorithm.into(), chain);
        Ok(Self {
            inner: Box::new(inner),
            algorithm,
        })
    }
}

fn check_pem(name: &str, pem: &[u8]) -> Result<()> {
    let label = b"-----BEGIN CERTIFICATE-----";
    let has_certificate = pem.windows(label.len()).any(|window| window == label);
    crate::check::ensure_argument(
        has_certificate,
        name,
        format!("{} bytes without a certificate", pem.len()),
        "certificates in PEM",
    )
}

/// The bytes of a PNG, JPEG, WAV or GIF file with a signed manifest. A manifest that they have is
/// replaced.
///
/// # Errors
/// [`Error::InvalidArgument`] if the bytes are of no such file, or the signature is not valid: the
/// key is not that of the certificate, which is expired or does not follow the specification.
/// [`Error::Other`] if the file cannot be signed.
pub fn sign(bytes: &[u8], provenance: &Provenance, signer: &Signer) -> Result<Vec<u8>> {
    let format = media_type(bytes)?;
    let mut builder = Builder::from_context(context(None)?);
    builder.set_intent(BuilderIntent::Create(
        DigitalSourceType::TrainedAlgorithmicMedia,
    ));
    builder.set_claim_generator_info(generator(&provenance.generator));
    builder
        .add_assertion_json(ASSERTION, provenance)
        .map_err(failed)?;
    let mut signed = Cursor::new(vec![]);
    builder
        .sign(&*signer.inner, format, &mut Cursor::new(bytes), &mut signed)
        .map_err(failed)?;
    let signed = signed.into_inner();
    // The crate signs with any key: whether it is that of the certificate shows in reading.
    match read(&signed, None)? {
        Some(credentials) if credentials.state != CredentialState::Invalid => Ok(signed),
        found => {
            let reasons = found.map(|credentials| credentials.failures.join("; "));
            let reasons = reasons.unwrap_or_else(|| "no manifest".into());
            let expected = "a valid certificate and its own key";
            Err(Error::argument("signer", reasons, expected))
        }
    }
}

/// How far a manifest can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// The manifest is broken, its signature is not valid, the certificate has expired, or the file
    /// was changed.
    Invalid,
    /// The signature is valid and the file unchanged; nothing is known of the signer.
    Valid,
    /// The same, and the signer's certificate is of one of the given authorities.
    Trusted,
}

/// What a manifest says. If the state is [`Invalid`](CredentialState::Invalid), none of it can be
/// relied on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Credentials {
    /// How far the manifest can be relied on.
    pub state: CredentialState,
    /// Common name of the signer's certificate.
    pub signer: Option<String>,
    /// Organisation of the signer's certificate.
    pub issuer: Option<String>,
    /// How the content came about: `…/trainedAlgorithmicMedia` for that of generative models.
    pub source_type: Option<String>,
    /// The assertion of [`sign`].
    pub provenance: Option<Provenance>,
    /// What the check found wrong, by codes of the specification (section 15.2):
    /// `signingCredential.untrusted` for an unknown signer, `assertion.dataHash.mismatch` for a
    /// changed file.
    pub failures: Vec<String>,
}

impl Credentials {
    fn invalid(failure: String) -> Self {
        Self {
            state: CredentialState::Invalid,
            signer: None,
            issuer: None,
            source_type: None,
            provenance: None,
            failures: vec![failure],
        }
    }
}

/// Reads and checks the manifest of a PNG, JPEG, WAV or GIF file; `None` if there is none. The
/// authorities to trust are certificates in PEM.
///
/// # Errors
/// [`Error::InvalidArgument`] if the bytes are of no such file, or the authorities cannot be read.
pub fn read(bytes: &[u8], trust_anchors: Option<&str>) -> Result<Option<Credentials>> {
    let format = media_type(bytes)?;
    let reader = Reader::from_context(context(trust_anchors)?);
    let reader = match reader.with_stream(format, Cursor::new(bytes)) {
        Ok(reader) => reader,
        Err(::c2pa::Error::JumbfNotFound) => return Ok(None),
        Err(error) => return Ok(Some(Credentials::invalid(error.to_string()))),
    };
    let state = match reader.validation_state() {
        ValidationState::Invalid => CredentialState::Invalid,
        ValidationState::Valid => CredentialState::Valid,
        ValidationState::Trusted => CredentialState::Trusted,
    };
    let Some(manifest) = reader.active_manifest() else {
        return Ok(Some(Credentials::invalid("no active manifest".into())));
    };
    let signature = manifest.signature_info();
    let results = reader.validation_results();
    let codes = results.and_then(|results| results.active_manifest());
    let failures = codes.map(|codes| codes.failure().iter());
    let failures = failures.into_iter().flatten();
    Ok(Some(Credentials {
        state,
        signer: signature.and_then(|signature| signature.common_name.clone()),
        issuer: signature.and_then(|signature| signature.issuer.clone()),
        source_type: source_type(manifest),
        provenance: manifest.find_assertion(ASSERTION).ok(),
        failures: failures.map(|status| status.code().to_owned()).collect(),
    }))
}

/// The source type of the first action that has one.
fn source_type(manifest: &Manifest) -> Option<String> {
    let actions: Actions = manifest.find_assertion(Actions::LABEL).ok()?;
    let stated = actions
        .actions
        .iter()
        .find_map(|action| action.source_type())?;
    match serde_json::to_value(stated) {
        Ok(Value::String(name)) => Some(name),
        _ => None,
    }
}

/// The name and the version of `name 1.2.3`.
fn generator(text: &str) -> ClaimGeneratorInfo {
    let (name, version) = match text.rsplit_once(' ') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let mut info = ClaimGeneratorInfo::new(if name.is_empty() { "aigc" } else { name });
    if let Some(version) = version {
        info.set_version(version);
    }
    info
}

/// Settings that fetch nothing.
fn context(trust_anchors: Option<&str>) -> Result<Context> {
    let mut settings = json!({
        "core": {"allowed_network_hosts": []},
        "verify": {"remote_manifest_fetch": false, "ocsp_fetch": false},
    });
    if let Some(anchors) = trust_anchors {
        // The crate passes over some texts without one.
        check_pem("trust_anchors", anchors.as_bytes())?;
        settings["trust"] = json!({"user_anchors": anchors});
    }
    Settings::new()
        .with_json(&settings.to_string())
        .and_then(|settings| Context::new().with_settings(settings))
        .map_err(|error| match trust_anchors {
            Some(_) => Error::argument("trust_anchors", error, "certificates in PEM"),
            None => failed(error),
        })
}

fn media_type(bytes: &[u8]) -> Result<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok("image/png"),
        [0xff, 0xd8, 0xff, ..] => Ok("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => Ok("audio/wav"),
        other => {
            let start = &other[..other.len().min(12)];
            let found = format!("{} bytes that begin with {start:02x?}", other.len());
            let expected = "a PNG, JPEG, WAV or GIF file";
            Err(Error::argument("bytes", found, expected))
        }
    }
}

fn failed(error: ::c2pa::Error) -> Error {
    Error::other(format!("Content Credentials: {error}"))
}
