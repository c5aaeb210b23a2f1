//! From a line of a group to the connections in it.

use tracer_core::escape::escape;

use crate::top::{Screen, Settings, Tab};

impl Settings {
    /// Opens the connections of the selected process, handshake group or listener, where Enter asks for its details. Call it
    /// after each terminal event, before [`Settings::hold`].
    ///
    /// The connections are those that contain its text, so the title shows the filter, and Esc clears it.
    pub fn drill_down(&mut self, screen: &Screen) {
        let is_group = matches!(self.tab, Tab::Owners | Tab::Handshakes | Tab::Listeners);
        if !is_group || !self.detail {
            return;
        }
        self.detail = false;
        if let Some(search) = self.group_text(screen) {
            self.tab = Tab::Connections;
            self.selected = 0;
            let query = self.query_mut();
            (query.search, query.state) = (search, None);
        }
    }

    /// Returns the text that the connections of the selected line contain; `None` if there is none.
    fn group_text(&self, screen: &Screen) -> Option<String> {
        match self.tab {
            Tab::Owners => {
                let process = screen.owners.get(self.selected)?.process?;
                Some(format!("{} {}", escape(process.name()), process.pid))
            }
            Tab::Handshakes => {
                // `192.0.2.7:443` as a client, `port 443 here` as a server.
                let group = &screen.handshakes.get(self.selected)?.group;
                match group.strip_prefix("port ").and_then(|rest| rest.split([' ', ',']).next()) {
                    Some(port) => Some(format!(":{port} ")),
                    None => group.contains(':').then(|| group.replace(['[', ']'], "")),
                }
            }
            Tab::Listeners => {
                let listener = screen.listeners.as_ref()?.get(self.selected)?;
                Some(format!(":{} ", listener.local.port))
            }
            Tab::Diagram | Tab::Connections | Tab::Stuck => None,
        }
    }
}
