//! What people do: Devices, Applications, Modules and ResourceQuotas come, change and go.

use super::*;

impl World {
    pub(in crate::fleet) fn create_device(&mut self, name: &str) {
        let mut device = Device::new(name, DeviceSpec { approved: true, ..DeviceSpec::default() });
        device.metadata.namespace = Some(NAMESPACE.to_owned());
        self.uids += 1;
        device.metadata.uid = Some(DeviceUid(self.uids.to_be_bytes()).to_string());
        device.metadata.labels = Some([("name".to_owned(), name.to_owned())].into());
        self.devices.insert(name.to_owned(), (device, FakeDevice::default()));
        self.send_device(name);
    }

    /// A person deletes it: at once without a finalizer, else once that is removed.
    pub(in crate::fleet) fn delete_device(&mut self, name: &str) {
        let Some((object, _)) = self.devices.get_mut(name) else { return };
        if object.metadata.finalizers.iter().flatten().count() == 0 {
            self.remove_device(name);
        } else if object.metadata.deletion_timestamp.is_none() {
            object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            self.deleted_ms.insert(name.to_owned(), self.now.ms);
            self.send_device(name);
        }
    }

    /// A person changes a Device.
    pub(in crate::fleet) fn edit_device(&mut self, name: &str, edit: impl FnOnce(&mut Device)) {
        edit(&mut self.devices.get_mut(name).unwrap().0);
        self.send_device(name);
    }

    pub(in crate::fleet) fn apply_application(&mut self, name: &str, module: u8, targets: TargetDevices) {
        self.spoiled.remove(name);
        let count = u8::try_from(self.version % 200).unwrap();
        let entry = self.applications.entry(name.to_owned()).or_insert_with(|| {
            let mut object = Application::new(name, ApplicationSpec::default());
            object.metadata.namespace = Some(NAMESPACE.to_owned());
            let mut uid = [count; 16];
            uid[..name.len().min(8)].copy_from_slice(&name.as_bytes()[..name.len().min(8)]);
            object.metadata.uid = Some(ApplicationUid(uid).to_string());
            object.metadata.generation = Some(0);
            object.metadata.creation_timestamp =
                Some(Time(Timestamp::from_second(i64::from(count)).unwrap()));
            (object, module)
        });
        if entry.0.metadata.deletion_timestamp.is_some() {
            return;
        }
        entry.0.metadata.generation = entry.0.metadata.generation.map(|generation| generation + 1);
        entry.0.spec.target_devices = Some(targets);
        entry.1 = module;
        self.touch_application(name);
    }

    /// The same for an application that is not started again.
    pub(in crate::fleet) fn apply_once(&mut self, name: &str, module: u8, targets: TargetDevices) {
        self.apply_application(name, module, targets);
        self.change_application(name, |object| object.spec.config.restart_policy = RestartPolicy::Never);
    }

    /// A new generation of an Application.
    pub(in crate::fleet) fn change_application(&mut self, name: &str, change: impl FnOnce(&mut Application)) {
        let Some((object, _)) = self.applications.get_mut(name) else { return };
        object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        change(object);
        self.touch_application(name);
    }

    /// A new generation that is no module.
    pub(in crate::fleet) fn spoil(&mut self, name: &str, wrong: &str) {
        self.spoiled.insert(name.to_owned(), wrong.to_owned());
        self.change_application(name, |_| {});
    }

    pub(in crate::fleet) fn delete_application(&mut self, name: &str) {
        let Some((object, _)) = self.applications.get_mut(name) else { return };
        if object.metadata.finalizers.iter().flatten().count() == 0 {
            self.applications.remove(name);
            self.fleet.handle_application_deleted(&key(name));
            return;
        }
        object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.touch_application(name);
    }

    /// Someone labels it: another resourceVersion, which the watch has not brought yet.
    pub(in crate::fleet) fn label_application_unseen(&mut self, name: &str) {
        self.version += 1;
        if let Some((object, _)) = self.applications.get_mut(name) {
            object.metadata.resource_version = Some(self.version.to_string());
        }
    }

    pub(super) fn touch_application(&mut self, name: &str) {
        self.version += 1;
        let version = self.version.to_string();
        if let Some((object, _)) = self.applications.get_mut(name) {
            object.metadata.resource_version = Some(version);
        }
        self.send_application(name);
    }

    /// A Module comes, goes, or comes back with other bytes.
    pub(in crate::fleet) fn set_module(&mut self, name: &str, number: Option<u8>) {
        match number {
            Some(number) => self.fleet.handle_module(self.now, &key(name), Arc::new(numbered(number))),
            None => self.fleet.handle_module_deleted(self.now, &key(name)),
        }
        match number {
            Some(number) => drop(self.modules.insert(name.to_owned(), number)),
            None => drop(self.modules.remove(name)),
        }
    }

    /// A ResourceQuota comes, changes or goes.
    pub(in crate::fleet) fn set_quota(&mut self, name: &str, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => {
                self.quotas.insert(name.to_owned(), bytes);
                self.send_quota(name);
            }
            None => {
                self.quotas.remove(name);
                self.quota_statuses.remove(name);
                self.fleet.handle_quota_deleted(&key(name));
            }
        }
    }
}
