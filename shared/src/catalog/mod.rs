//! The catalog as both programs see it: manifests (one component each), and the signed bundle that carries them.
//!
//! The list of fields is closed (`design/manifest.md`): an unknown field is an error, never ignored.

mod bundle;
mod download;
mod manifest;
mod verify;

pub use bundle::{Bundle, BundleError, PublisherKey, SignedBundle, digest_of, generate_publisher_key, sign};
pub use download::{Download, cached_names};
pub use manifest::{
    As, Detect, EnvSecret, Manifest, Need, Output, Param, Platform, SecretForm, Slot, Step, StepKind, Tag,
    Wrapper, parse_duration,
};
pub use verify::{CheckUrl, Condition, FieldPath, Host, Literal, Method, Part, Template, VerifySecret};
