//! The device as applications see it, for the length of one slice.

use alloc::{string::String, vec::Vec};

use wasmbed_agent::{Agent, ApplicationEvent, Message, PublishError, RunId};
use wasmbed_protocol::{ApplicationUid, CorrelationId, ModuleDigest};
use wasmbed_runtime::{
    Answer, AppId, Edges, Host, KeyValueError, PeripheralError, Peripherals, Published,
    peripherals::{bus, uart},
};

use crate::{
    buses::Buses,
    clock::Clock,
    key_value::{KeyValue, Request},
    platform::{Entropy as _, LogSink as _, Platform, Timer as _},
    uart::Wanted,
};

/// A loaded application, as the loop knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) uid: ApplicationUid,
    pub(crate) run: RunId,
    pub(crate) name: String,
    pub(crate) digest: ModuleDigest,
    pub(crate) correlation_id: CorrelationId,
}

impl Slot {
    pub(crate) fn id(&self) -> AppId {
        Self::id_of(self.uid)
    }

    pub(crate) fn id_of(uid: ApplicationUid) -> AppId {
        AppId(uid.0)
    }
}

pub(crate) struct DeviceHost<'a, P: Platform> {
    pub(crate) platform: &'a mut P,
    pub(crate) agent: &'a mut Agent,
    pub(crate) key_value: &'a mut KeyValue,
    pub(crate) buses: &'a mut Buses,
    pub(crate) slots: &'a [Slot],
    pub(crate) now_ms: u64,
    pub(crate) clock: &'a mut Clock,
}

impl<P: Platform> DeviceHost<'_, P> {
    fn ask_uart(
        &mut self,
        application: AppId,
        port: u32,
        wanted: Wanted,
        until_us: u64,
    ) -> Result<(), uart::Error> {
        let now_us = self.now_us();
        let peripherals = self.platform.peripherals();
        self.buses.uart.push(application, port, wanted, until_us, now_us, peripherals)
    }
}

impl<P: Platform> Host for DeviceHost<'_, P> {
    fn now_us(&mut self) -> u64 {
        self.clock.read(self.platform.timer().now_us())
    }

    fn unix_ms(&mut self) -> Option<u64> {
        self.agent.unix_ms(self.now_ms)
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.platform.entropy().fill(bytes);
    }

    fn log(&mut self, application: AppId, text: &[u8], lines_lost: u32) {
        let Some(slot) = self.slots.iter().find(|slot| slot.id() == application) else {
            debug_assert!(false, "only what is loaded writes lines");
            return;
        };
        let text = String::from_utf8_lossy(text);
        self.platform.log().application_line(&slot.uid, &slot.name, &text);
        let line = ApplicationEvent::Line { text: text.into_owned(), lines_lost };
        self.agent.handle_application(self.now_ms, slot.run, line);
    }

    fn key_value_get(
        &mut self,
        application: AppId,
        key: &[u8],
        _value: &mut [u8],
    ) -> Answer<Result<Option<usize>, KeyValueError>> {
        self.key_value.push(application, Request::Get { key: Vec::from(key) });
        Answer::Pending
    }

    fn key_value_put(
        &mut self,
        application: AppId,
        key: &[u8],
        value: &[u8],
    ) -> Answer<Result<(), KeyValueError>> {
        self.key_value.push(application, Request::Put { key: Vec::from(key), value: Vec::from(value) });
        Answer::Pending
    }

    fn key_value_delete(&mut self, application: AppId, key: &[u8]) -> Answer<Result<bool, KeyValueError>> {
        self.key_value.push(application, Request::Delete { key: Vec::from(key) });
        Answer::Pending
    }

    fn publish(&mut self, application: AppId, topic: &[u8], payload: &[u8], drop_oldest: bool) -> Published {
        let Some(slot) = self.slots.iter().find(|slot| slot.id() == application) else {
            debug_assert!(false, "only what is loaded publishes");
            return Published::NotNow;
        };
        match self.agent.publish(self.now_ms, slot.run, Message { topic, payload, drop_oldest }) {
            Ok(()) => Published::Taken,
            Err(PublishError::Again) => Published::NotNow,
            Err(PublishError::UnknownTopic) => Published::UnknownTopic,
        }
    }

    fn receive(&mut self, application: AppId, message: &mut [u8], room: usize) -> Option<usize> {
        let run = self.slots.iter().find(|slot| slot.id() == application)?.run;
        self.agent.receive(run, |received| {
            if let Some(start) = message.get_mut(..received.len()) {
                start.copy_from_slice(received);
            }
            (received.len(), received.len() <= room)
        })
    }

    fn has_message(&mut self, application: AppId) -> bool {
        let slot = self.slots.iter().find(|slot| slot.id() == application);
        slot.is_some_and(|slot| self.agent.receive(slot.run, |_| ((), false)).is_some())
    }

    fn setting(&mut self, application: AppId, name: &[u8], value: &mut [u8]) -> Option<usize> {
        let run = self.slots.iter().find(|slot| slot.id() == application)?.run;
        let name = core::str::from_utf8(name).ok()?;
        self.agent.setting(run, name, |setting| {
            setting.with_bytes(|bytes| {
                value.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            })
        })?
    }

    fn has_changed_setting(&mut self, application: AppId) -> bool {
        let slot = self.slots.iter().find(|slot| slot.id() == application);
        slot.is_some_and(|slot| self.agent.has_changed_setting(slot.run))
    }

    fn transfer(&mut self, application: AppId, bus: u32, transfer: bus::Transfer) -> Result<(), bus::Error> {
        let now_us = self.now_us();
        self.buses.transfers.push(application, bus, transfer, now_us)
    }

    fn uart_read(
        &mut self,
        application: AppId,
        port: u32,
        room: usize,
        until_us: u64,
    ) -> Result<(), uart::Error> {
        self.ask_uart(application, port, Wanted::Read { room }, until_us)
    }

    fn uart_write(
        &mut self,
        application: AppId,
        port: u32,
        bytes: &[u8],
        until_us: u64,
    ) -> Result<(), uart::Error> {
        self.ask_uart(application, port, Wanted::write(bytes), until_us)
    }

    fn gpio_read(&mut self, application: AppId, pin: u32) -> Result<bool, PeripheralError> {
        self.buses.pins.check(application, pin)?;
        self.platform.peripherals().gpio_read(pin)
    }

    fn gpio_write(&mut self, application: AppId, pin: u32, level: bool) -> Result<(), PeripheralError> {
        self.buses.pins.check(application, pin)?;
        self.platform.peripherals().gpio_write(pin, level)
    }

    fn gpio_watch(&mut self, application: AppId, pin: u32, edges: Edges) -> Result<(), PeripheralError> {
        self.buses.pins.watch(application, pin, edges, self.platform.peripherals())
    }

    fn gpio_edges(&mut self, application: AppId, pin: u32) -> Result<u32, PeripheralError> {
        self.buses.pins.take_edges(application, pin)
    }

    fn take_wake(&mut self, application: AppId) -> bool {
        let now_us = self.now_us();
        self.buses.pins.take_wake(application, now_us)
    }

    fn peripherals(&mut self) -> &mut dyn Peripherals {
        self.platform.peripherals()
    }
}
