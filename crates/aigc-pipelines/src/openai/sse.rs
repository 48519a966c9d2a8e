//! A parser of server-sent events (HTML standard, section 9.2.6).

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// The field `event`; empty if there is none.
    pub(super) event: String,
    /// The lines of the field `data`, joined by line feeds.
    pub(super) data: String,
}

/// The stream has an event of more bytes than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventTooLarge;

/// Parses a stream that arrives in pieces.
#[derive(Debug)]
pub(super) struct SseParser {
    /// Bytes of the line that is not complete.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
    /// Whether the first line is yet to come: it may begin with a byte order mark.
    is_first: bool,
    event: SseEvent,
    has_data: bool,
    limit: usize,
}

impl SseParser {
    /// A parser of events of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            line: vec![],
            after_return: false,
            is_first: true,
            event: SseEvent::default(),
            has_data: false,
            limit,
        }
    }

    /// Parses the next piece, and appends the events that it completes. An event that the stream
    /// does not complete with an empty line is lost, as the standard demands.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        events: &mut Vec<SseEvent>,
    ) -> Result<(), EventTooLarge> {
        let mut rest = piece;
        if self.after_return && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !piece.is_empty() {
            self.after_return = false;
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&rest[..end])?;
            let is_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_return {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            let line = std::mem::take(&mut self.line);
            self.end_line(&line, events);
        }
        self.extend(rest)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + self.event.data.len() + bytes.len() > self.limit {
            return Err(EventTooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], events: &mut Vec<SseEvent>) {
        let line = String::from_utf8_lossy(line);
        let mut line = &*line;
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                events.push(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.event = value.into(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments have an empty field; `id` and `retry` serve reconnections.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stream: &[u8], pieces: usize) -> Vec<(String, String)> {
        let (mut parser, mut events) = (SseParser::new(100), vec![]);
        for piece in stream.chunks(pieces) {
            parser.push(piece, &mut events).unwrap();
            parser.push(b"", &mut events).unwrap();
        }
        events.into_iter().map(|e| (e.event, e.data)).collect()
    }

    #[test]
    fn streams_are_parsed_by_the_rules_however_they_are_cut() {
        let event = |event: &str, data: &str| (event.to_string(), data.to_string());
        for (stream, expected) in [
            ("data: a\n\n", vec![event("", "a")]),
            (
                "data:a\n\ndata:  b\n\n",
                vec![event("", "a"), event("", " b")],
            ),
            ("event: x\ndata: {\ndata: }\n\n", vec![event("x", "{\n}")]),
            (
                "event: x\r\ndata: a\r\n\r\ndata: b\r\r",
                vec![event("x", "a"), event("", "b")],
            ),
            (
                ": keep-alive\n\n:\n\ndata: a\n: b\n\n",
                vec![event("", "a")],
            ),
            ("\u{feff}data: a\n\n", vec![event("", "a")]),
            ("data\n\ndata: \n\n", vec![event("", ""), event("", "")]),
            (
                "id: 7\nretry: 3\nodd: x\ndata: [DONE]\n\n",
                vec![event("", "[DONE]")],
            ),
            // No data, no event; the name does not reach the next one.
            ("event: x\n\ndata: a\n\n", vec![event("", "a")]),
            ("data: é: ü\n\n", vec![event("", "é: ü")]),
            // The stream ends before the empty line.
            ("data: a\n\ndata: b\n", vec![event("", "a")]),
            ("data: a\n\ndata: b", vec![event("", "a")]),
        ] {
            for pieces in [1, 2, 3, 5, 1000] {
                assert_eq!(
                    parse(stream.as_bytes(), pieces),
                    expected,
                    "{stream:?} {pieces}"
                );
            }
        }
    }

    #[test]
    fn large_events_are_refused() {
        let mut parser = SseParser::new(100);
        let mut events = vec![];
        let line = format!("data: {}\n", "x".repeat(60));
        assert_eq!(parser.push(line.as_bytes(), &mut events), Ok(()));
        assert_eq!(
            parser.push(line.as_bytes(), &mut events),
            Err(EventTooLarge)
        );
        let endless = vec![b'x'; 200];
        assert_eq!(
            SseParser::new(100).push(&endless, &mut events),
            Err(EventTooLarge)
        );
        assert!(events.is_empty());
    }
}
