//! The console in a real Chromium: a consultant's whole job with the mouse, with the keyboard alone and without scripts, and
//! what has to hold on every page. Run by `tests/run browser`, which brings the browser.
//!
//! A page is checked as soon as `control-plane/src/router.rs` has its route; see `pages.rs`.

mod by_hand;
mod copying;
mod every_page;
mod incident;
mod keyboard;
mod offboarding;
mod pages;
mod passkeys;
mod paste;
pub mod scene;
mod scope;
mod statement;
mod steady;
pub mod window;
