use std::collections::VecDeque;

use shared::protocol::link::{FromAgent, FromBoard, Report, ReportBody};
use tokio::sync::mpsc;

use super::within;

/// One link. Dropping it cuts the connection without a word.
pub struct Link {
    from_agent: mpsc::UnboundedReceiver<FromAgent>,
    to_agent: mpsc::UnboundedSender<FromBoard>,
    /// Inventories come when they come; they are kept for whoever asks.
    inventories: VecDeque<ReportBody>,
}

impl Link {
    pub fn new(
        from_agent: mpsc::UnboundedReceiver<FromAgent>,
        to_agent: mpsc::UnboundedSender<FromBoard>,
    ) -> Self {
        Self { from_agent, to_agent, inventories: VecDeque::new() }
    }

    pub fn send(&self, frame: FromBoard) {
        self.to_agent.send(frame).unwrap();
    }

    /// For a link that may be cut: nobody hears it then.
    pub fn try_send(&self, frame: FromBoard) {
        let _ = self.to_agent.send(frame);
    }

    /// The next frame, or nothing when the link is cut.
    pub async fn next(&mut self) -> Option<FromAgent> {
        self.from_agent.recv().await
    }

    pub async fn frame(&mut self) -> FromAgent {
        within(self.from_agent.recv()).await.expect("the link is cut")
    }

    /// The next report that isn't an inventory; not acknowledged.
    pub async fn report(&mut self) -> Report {
        loop {
            if let FromAgent::Report(report) = self.frame().await {
                if !matches!(report.body, ReportBody::Inventory { .. }) {
                    return report;
                }
                self.keep(report);
            }
        }
    }

    fn keep(&mut self, report: Report) {
        self.acknowledge(&report);
        self.inventories.push_back(report.body);
    }

    pub fn acknowledge(&self, report: &Report) {
        self.send(FromBoard::Ack { reports: vec![report.id] });
    }

    /// Waits for an inventory that fits.
    pub async fn inventory(&mut self, fits: impl Fn(&ReportBody) -> bool) {
        loop {
            while let Some(inventory) = self.inventories.pop_front() {
                if fits(&inventory) {
                    return;
                }
            }
            if let FromAgent::Report(report) = self.frame().await
                && matches!(report.body, ReportBody::Inventory { .. })
            {
                self.keep(report);
            }
        }
    }
}
