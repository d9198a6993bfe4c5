//! The decision of a shadow as bytes and back: behind the decision itself, if its flags say so.
//!
//! Knows: the form of a block's contents. Must not know: how it is compressed, where it is kept.

use super::{Decoder, Encoder};
use crate::journal::bytes::{Damaged, put};
use crate::journal::marks::Marks;
use crate::{Outcome, Shadow, ShadowStep, StepOutcome};

/// The bit of the flags, as written, that says that there is one. What knows version 1 only refuses it.
pub(super) const HAS_SHADOW: u64 = 1 << 17;

impl Encoder {
    pub(super) fn shadow(&mut self, shadow: &Shadow, marks: &Marks) {
        self.text(shadow.file.as_bytes());
        self.out.push(shadow.outcome as u8);
        for name in [&shadow.by, &shadow.place] {
            self.text(name.as_deref().unwrap_or_default().as_bytes());
        }
        self.phrase(&shadow.answer, marks);
        self.phrase(&shadow.failure, marks);
        self.text(shadow.trust.as_bytes());
        put(&mut self.out, shadow.steps.len() as u64);
        for step in &shadow.steps {
            self.text(step.path.as_bytes());
            self.out.push(step.outcome as u8);
        }
    }
}

impl Decoder<'_> {
    pub(super) fn shadow(&mut self, marks: &Marks) -> Result<Shadow, Damaged> {
        const OUTCOME: Damaged = Damaged("an outcome is unknown");
        let file = self.text()?.into();
        let outcome = Outcome::from_number(self.reader.byte()?).ok_or(OUTCOME)?;
        let by = Some(self.text()?).filter(|name| !name.is_empty()).map(Into::into);
        let place = Some(self.text()?).filter(|name| !name.is_empty()).map(Into::into);
        let (answer, failure) = (self.phrase(marks)?.into(), self.phrase(marks)?.into());
        let trust = self.text()?.into();
        let mut steps = Vec::new();
        for _ in 0..self.reader.count()? {
            let path = self.text()?.into();
            let outcome = StepOutcome::from_number(self.reader.byte()?).ok_or(OUTCOME)?;
            steps.push(ShadowStep { path, outcome });
        }
        Ok(Shadow { file, outcome, by, place, answer, failure, trust, steps })
    }
}
