//! Decisions as bytes and back.
//!
//! Knows: the form of a block's contents. Must not know: how it is compressed, where it is kept.
//!
//! All decisions of a block belong to one table of steps. What is the same as in the decision before is not
//! written again: texts such as answers, hosts and findings stand once a block, with marks in place of the
//! client's address; of a request that has the same attributes as the one before only the values that
//! changed. Numbers are differences where that is short.

mod course;
mod shadow;

use super::bytes::{Damaged, Reader, put, put_bytes, put_float, put_signed, text};
use super::marks::Marks;
use crate::{
    Decision, DecisionId, Flags, Lookup, LookupKind, Lookups, Origin, Outcome, Points, Step, StepOutcome,
    StepTable, Walk,
};
use course::Course;
use shadow::HAS_SHADOW;
use std::ops::Range;
use std::sync::Arc;

/// The bit of the flags, as written, that says that a walk was cut.
const IS_CUT: u64 = 1 << 16;
/// A depth from here on has a byte of its own.
const DEEP: u8 = 15;
/// A value is the one that stood at this place of the request before.
const SAME: u64 = 1;
/// The bytes that one decision may refer to: twice what a request, its findings and its lookups can have.
const MAX_DECISION_BYTES: usize = 4 << 20;
/// Texts that are looked for among those known; more than that of one block overwrite one another.
const SLOTS: usize = 512;

/// The attribute that is the address of the client.
const CLIENT: &[u8] = b"client_address";
/// Writes the decisions of one block.
#[derive(Default)]
pub(super) struct Encoder {
    out: Vec<u8>,
    last_id: u64,
    /// Where the texts that are known stand.
    texts: Vec<Range<u32>>,
    /// Places in `texts` by their hash, from 1.
    slots: Vec<u16>,
    /// The attributes of the last request, as a text, and where its values stand.
    shape: Option<usize>,
    values: Vec<Range<u32>>,
    /// The known texts that were the phrases of the last decision, and how many this one has so far.
    phrases: Vec<usize>,
    phrase: usize,
    scratch: Scratch,
}

/// Memory that is used again.
#[derive(Default)]
struct Scratch {
    shape: Vec<u8>,
    values: Vec<Range<usize>>,
    client: Vec<u8>,
    phrase: Vec<u8>,
}

impl Encoder {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Begins a new block.
    pub fn clear(&mut self) {
        self.out.clear();
        self.texts.clear();
        self.slots.clear();
        self.values.clear();
        self.phrases.clear();
        (self.last_id, self.shape) = (0, None);
    }

    /// Adds a decision.
    pub fn add(&mut self, decision: &Decision) {
        let walk = &decision.walk;
        self.phrase = 0;
        let id = decision.id.number();
        put_signed(&mut self.out, id.wrapping_sub(self.last_id).cast_signed());
        self.last_id = id;
        self.text(decision.host.as_bytes());
        let marks = self.request(&decision.request);
        put(&mut self.out, u64::from(decision.took));
        self.out.push(decision.outcome as u8);
        put(&mut self.out, decision.by.map_or(0, |by| u64::from(by) + 1));
        self.phrase(&decision.answer, &marks);
        self.phrase(&decision.failure, &marks);
        let cut = if walk.is_cut { IS_CUT } else { 0 };
        let shadow = if decision.shadow.is_some() { HAS_SHADOW } else { 0 };
        put(&mut self.out, u64::from(decision.flags.0) | cut | shadow);
        put_float(&mut self.out, decision.score);
        put(&mut self.out, decision.session.len() as u64);
        for (name, value) in &decision.session {
            self.text(name.as_bytes());
            put_bytes(&mut self.out, value.as_bytes());
        }
        self.steps(&walk.steps);
        self.notes(walk, &marks);
        put(&mut self.out, walk.points.len() as u64);
        for points in &walk.points {
            put(&mut self.out, u64::from(points.step));
            self.text(points.field.as_bytes());
            put_float(&mut self.out, points.points);
        }
        put(&mut self.out, walk.lookups.len() as u64);
        for lookup in walk.lookups.iter() {
            self.out.push(lookup.kind as u8 | (lookup.origin as u8) << 4);
            self.text(lookup.server.as_bytes());
            self.phrase(lookup.question, &marks);
            self.phrase(lookup.answer, &marks);
            put(&mut self.out, u64::from(lookup.waited));
        }
        if let Some(shadow) = &decision.shadow {
            self.shadow(shadow, &marks);
        }
    }

    /// Writes a text, or which of the known ones it is: its place in `texts`.
    fn text(&mut self, bytes: &[u8]) -> usize {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, 0);
        }
        let slot = slot(bytes);
        let known = usize::from(self.slots[slot]);
        if let Some(range) = known.checked_sub(1).and_then(|known| self.texts.get(known))
            && self.out.get(range.start as usize..range.end as usize) == Some(bytes)
        {
            put(&mut self.out, known as u64);
            return known - 1;
        }
        self.out.push(0);
        let range = literal(&mut self.out, bytes, 0);
        let place = self.texts.len();
        self.texts.push(range);
        if let Ok(next) = u16::try_from(place + 1) {
            self.slots[slot] = next;
        }
        place
    }

    /// Writes a text that may name the client: a mark stands for its address.
    fn phrase(&mut self, text: &str, marks: &Marks) {
        let at = self.phrase;
        self.phrase += 1;
        // Most often it is what the decision before had here, and to see that costs least.
        if let Some(known) = self.phrases.get(at).copied() {
            let range = &self.texts[known];
            if marks.is_expanded(&self.out[range.start as usize..range.end as usize], text.as_bytes()) {
                put(&mut self.out, known as u64 + 1);
                return;
            }
        }
        let mut phrase = std::mem::take(&mut self.scratch.phrase);
        phrase.clear();
        marks.put(text.as_bytes(), &mut phrase);
        let known = self.text(&phrase);
        self.scratch.phrase = phrase;
        match self.phrases.get_mut(at) {
            Some(place) => *place = known,
            None => self.phrases.push(known),
        }
    }

    /// Writes which attributes a request has, in one text, and then the values; what stands for its client.
    fn request(&mut self, request: &[u8]) -> Marks {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.read(request);
        let shape = self.text(&scratch.shape);
        let is_same = self.shape == Some(shape) && self.values.len() == scratch.values.len();
        if !is_same {
            self.values.clear();
            self.values.resize(scratch.values.len(), 0..0);
        }
        self.shape = Some(shape);
        for (before, range) in self.values.iter_mut().zip(&scratch.values) {
            let value = &request[range.clone()];
            let last = &self.out[before.start as usize..before.end as usize];
            if is_same && !value.is_empty() && last == value {
                put(&mut self.out, SAME);
            } else {
                *before = literal(&mut self.out, value, 1);
            }
        }
        let marks = Marks::of(&scratch.client);
        self.scratch = scratch;
        marks
    }

    /// Writes which steps there were, in one text, and then how long each took.
    fn steps(&mut self, steps: &[Step]) {
        let mut phrase = std::mem::take(&mut self.scratch.phrase);
        phrase.clear();
        let (mut number, mut course) = (-1, Course::default());
        for step in steps {
            put_signed(&mut phrase, i64::from(step.number) - number - 1);
            phrase.push(step.outcome as u8 | step.depth.min(DEEP) << 4);
            if step.depth >= DEEP {
                phrase.push(step.depth);
            }
            put_signed(&mut phrase, i64::from(step.began) - course.expected(step.depth));
            course.add(step);
            number = i64::from(step.number);
        }
        self.text(&phrase);
        self.scratch.phrase = phrase;
        steps.iter().for_each(|step| put(&mut self.out, u64::from(step.took)));
    }

    fn notes(&mut self, walk: &Walk, marks: &Marks) {
        put(&mut self.out, walk.notes().count() as u64);
        let mut last = 0;
        for (step, note) in walk.notes() {
            put_signed(&mut self.out, i64::from(step) - last);
            self.phrase(note, marks);
            last = i64::from(step);
        }
    }
}

/// Where a text is looked for; not a part of the format.
fn slot(bytes: &[u8]) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
    usize::try_from(hash >> 40).unwrap_or_default() % SLOTS
}

/// Writes bytes behind their number, which leaves some bits free; where they stand.
fn literal(out: &mut Vec<u8>, bytes: &[u8], free_bits: u32) -> Range<u32> {
    put(out, (bytes.len() as u64) << free_bits);
    // A block is far smaller than 4 GiB.
    let place = |out: &Vec<u8>| u32::try_from(out.len()).unwrap_or(u32::MAX);
    let start = place(out);
    out.extend_from_slice(bytes);
    start..place(out)
}

impl Scratch {
    /// Takes a request apart: its lines without the values, and where the values are. What is behind the last
    /// end of a line, which no request has, is a line without an end.
    fn read(&mut self, request: &[u8]) {
        self.shape.clear();
        self.values.clear();
        self.client.clear();
        let mut start = 0;
        while start < request.len() {
            let length = memchr::memchr(b'\n', &request[start..]).map_or(request.len() - start, |at| at + 1);
            let (line, end) = (&request[start..start + length], start + length);
            let value_end = end - usize::from(line.ends_with(b"\n"));
            match memchr::memchr(b'=', line) {
                Some(at) => {
                    let value = start + at + 1..value_end;
                    if &line[..at] == CLIENT {
                        self.client.clear();
                        self.client.extend_from_slice(&request[value.clone()]);
                    }
                    self.shape.extend_from_slice(&line[..=at]);
                    self.values.push(value);
                }
                None => self.shape.extend_from_slice(&request[start..value_end]),
            }
            self.shape.extend_from_slice(&request[value_end..end]);
            start = end;
        }
    }
}

/// Reads the decisions of one block.
pub(super) struct Decoder<'a> {
    reader: Reader<'a>,
    table: &'a Arc<StepTable>,
    last_id: u64,
    texts: Vec<&'a [u8]>,
    hosts: Vec<Arc<str>>,
    shape: &'a [u8],
    values: Vec<&'a [u8]>,
    /// What this decision may still hold: few bytes can refer to many.
    room: usize,
}

impl<'a> Decoder<'a> {
    /// Of these bytes, whose steps are those of a table.
    pub fn new(bytes: &'a [u8], table: &'a Arc<StepTable>) -> Decoder<'a> {
        let reader = Reader::new(bytes);
        Decoder {
            reader,
            table,
            last_id: 0,
            texts: Vec::new(),
            hosts: Vec::new(),
            shape: b"",
            values: Vec::new(),
            room: 0,
        }
    }

    fn decision(&mut self) -> Result<Decision, Damaged> {
        self.room = MAX_DECISION_BYTES;
        self.last_id = self.last_id.wrapping_add(self.reader.signed()?.cast_unsigned());
        let host = self.host()?;
        let (request, marks) = self.request()?;
        let took = self.reader.small()?;
        let outcome = Outcome::from_number(self.reader.byte()?).ok_or(Damaged("an outcome is unknown"))?;
        let by = self.reader.small::<u32>()?.checked_sub(1);
        let by = by.map(|by| u16::try_from(by).map_err(|_| Damaged("a step is unknown"))).transpose()?;
        let answer = self.phrase(&marks)?.into();
        let failure = self.phrase(&marks)?.into();
        let flags = self.reader.number()?;
        let score = self.reader.float()?;
        let mut session = Vec::new();
        for _ in 0..self.reader.count()? {
            session.push((self.text()?.into(), text(self.reader.bytes()?)?.into()));
        }
        let mut walk = Walk::default();
        walk.is_cut = flags & IS_CUT != 0;
        walk.steps = self.steps()?;
        self.notes(&mut walk, &marks)?;
        for _ in 0..self.reader.count()? {
            let (step, field) = (self.reader.small()?, self.text()?.into());
            walk.points.push(Points { step, field, points: self.reader.float()? });
        }
        for _ in 0..self.reader.count()? {
            self.lookup(&marks, &mut walk.lookups)?;
        }
        let has_shadow = flags & HAS_SHADOW != 0;
        let shadow = has_shadow.then(|| self.shadow(&marks)).transpose()?.map(Box::new);
        let flags =
            Flags(u16::try_from(flags & !IS_CUT & !HAS_SHADOW).map_err(|_| Damaged("a flag is unknown"))?);
        let (id, table) = (DecisionId::from_number(self.last_id), Arc::clone(self.table));
        Ok(Decision {
            id,
            table,
            host,
            request,
            took,
            outcome,
            by,
            answer,
            failure,
            flags,
            score,
            session,
            walk,
            shadow,
        })
    }

    fn raw_text(&mut self) -> Result<&'a [u8], Damaged> {
        let bytes = match self.reader.small::<usize>()?.checked_sub(1) {
            Some(known) => self.texts.get(known).copied().ok_or(Damaged("a text is unknown"))?,
            None => {
                let bytes = self.reader.bytes()?;
                self.texts.push(bytes);
                bytes
            }
        };
        self.use_room(bytes.len())?;
        Ok(bytes)
    }

    fn use_room(&mut self, bytes: usize) -> Result<(), Damaged> {
        self.room = self.room.checked_sub(bytes).ok_or(Damaged("a decision is too large"))?;
        Ok(())
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        text(self.raw_text()?)
    }

    fn phrase(&mut self, marks: &Marks) -> Result<String, Damaged> {
        let marked = self.raw_text()?;
        let text = marks.expand(marked);
        self.use_room(text.len())?;
        String::from_utf8(text).map_err(|_| Damaged("a text is not UTF-8"))
    }

    /// A host; decisions of one block share it.
    fn host(&mut self) -> Result<Arc<str>, Damaged> {
        let name = self.text()?;
        if let Some(known) = self.hosts.iter().find(|host| &***host == name) {
            return Ok(Arc::clone(known));
        }
        let host: Arc<str> = name.into();
        self.hosts.push(Arc::clone(&host));
        Ok(host)
    }

    fn request(&mut self) -> Result<(Box<[u8]>, Marks), Damaged> {
        let mut client: &[u8] = b"";
        let shape = self.raw_text()?;
        let mut request = Vec::with_capacity(2 * shape.len());
        let before = std::mem::take(&mut self.values);
        let is_same = std::ptr::eq(shape, self.shape);
        self.shape = shape;
        for line in shape.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            request.extend_from_slice(content);
            if content.contains(&b'=') {
                let value = match self.reader.number()? {
                    SAME => before.get(self.values.len()).filter(|_| is_same).copied(),
                    length if length % 2 == 0 => {
                        let length = usize::try_from(length / 2).unwrap_or(usize::MAX);
                        Some(self.reader.take(length)?)
                    }
                    _ => None,
                };
                let value = value.ok_or(Damaged("a value is unknown"))?;
                self.use_room(value.len())?;
                request.extend_from_slice(value);
                if content.strip_suffix(b"=") == Some(CLIENT) {
                    client = value;
                }
                self.values.push(value);
            }
            request.extend_from_slice(&line[content.len()..]);
        }
        Ok((request.into(), Marks::of(client)))
    }

    fn steps(&mut self) -> Result<Vec<Step>, Damaged> {
        const RANGE: Damaged = Damaged("a step is out of range");
        let mut shape = Reader::new(self.raw_text()?);
        let (mut steps, mut number, mut course) = (Vec::new(), -1_i64, Course::default());
        while !shape.is_empty() {
            number = number.checked_add(shape.signed()?).and_then(|it| it.checked_add(1)).ok_or(RANGE)?;
            let byte = shape.byte()?;
            let outcome = StepOutcome::from_number(byte & 15).ok_or(Damaged("an outcome is unknown"))?;
            let depth = if byte >> 4 == DEEP { shape.byte()? } else { byte >> 4 };
            let began = course.expected(depth).checked_add(shape.signed()?).ok_or(RANGE)?;
            let step = Step {
                number: u16::try_from(number).map_err(|_| RANGE)?,
                depth,
                outcome,
                began: u32::try_from(began).map_err(|_| RANGE)?,
                took: self.reader.small()?,
            };
            course.add(&step);
            steps.push(step);
        }
        Ok(steps)
    }

    fn notes(&mut self, walk: &mut Walk, marks: &Marks) -> Result<(), Damaged> {
        let mut step = 0_i64;
        for _ in 0..self.reader.count()? {
            step = step.wrapping_add(self.reader.signed()?);
            let place = u16::try_from(step).map_err(|_| Damaged("a step is out of range"))?;
            walk.push_note(place, &self.phrase(marks)?);
        }
        Ok(())
    }

    fn lookup(&mut self, marks: &Marks, lookups: &mut Lookups) -> Result<(), Damaged> {
        let byte = self.reader.byte()?;
        let kind = LookupKind::from_number(byte & 15);
        let origin = Origin::from_number(byte >> 4);
        let (kind, origin) = kind.zip(origin).ok_or(Damaged("a kind of lookup is unknown"))?;
        let server = self.text()?;
        let (question, answer) = (self.phrase(marks)?, self.phrase(marks)?);
        let waited = self.reader.small()?;
        lookups.push(Lookup { kind, server, question: &question, answer: &answer, waited, origin });
        Ok(())
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Decision, Damaged>;
    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let decision = self.decision();
        if decision.is_err() {
            self.reader = Reader::new(b"");
        }
        Some(decision)
    }
}
