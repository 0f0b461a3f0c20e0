//! Calls that a correct worker never makes, for programs that test a broker, like `isdcrash`.

use super::Worker;
use crate::conn::WriteFault;
use crate::error::Error;
use protocol::errors::ErrorCode;

impl Worker {
    /// Sends bytes that need not be a frame. For programs that test a broker, like `isdcrash`.
    #[doc(hidden)]
    pub fn write_raw(&mut self, bytes: &[u8]) {
        if let Some(conn) = &mut self.conn
            && let Err(WriteFault::Broken(lost)) = conn.write_raw(bytes)
        {
            self.lose(lost);
        }
    }

    /// Closes the connection without a logout. For programs that test a broker, like `isdcrash`.
    #[doc(hidden)]
    pub fn drop_connection(&mut self) {
        self.conn = None;
        self.set_over(&Error::new(ErrorCode::BrokerLost, "this program dropped its connection"));
    }
}
