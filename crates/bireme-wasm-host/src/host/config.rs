//! `wasi:config/store`: the environment of the workload.

use super::bindings::draft::wasi::config0_2_0_rc_1::store as rc;
use super::bindings::sync::wasi::config0_2_0_draft_2024_09_27::store as draft;
use crate::guest::Guest;

impl Guest {
    fn environment(&self, name: &str) -> Option<String> {
        self.component.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

impl draft::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<String>, draft::Error> {
        Ok(self.environment(&key))
    }

    async fn get_all(&mut self) -> Result<Vec<(String, String)>, draft::Error> {
        Ok(self.component.env.clone())
    }
}

impl rc::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<String>, rc::Error> {
        Ok(self.environment(&key))
    }

    async fn get_all(&mut self) -> Result<Vec<(String, String)>, rc::Error> {
        Ok(self.component.env.clone())
    }
}
