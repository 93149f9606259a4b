//! The page where consultants are each other's second person: what others ask of them, and what they asked themselves.

pub mod views;
pub mod web;
