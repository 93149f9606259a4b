//! The agent's integration tests, one binary: the real `board-agent` against a board in this process, and scripts that
//! are really started.

#[cfg(test)]
mod board;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod downloads;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod folder;
#[cfg(test)]
mod install;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod paste;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod sealed_paste;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod support;
#[cfg(test)]
mod verify;
