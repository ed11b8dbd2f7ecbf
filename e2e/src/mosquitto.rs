//! A broker of MQTT 5 that is not ours: Debian's mosquitto, with TLS, passwords and what it keeps in a folder of the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use wasmbed_testbed::{Port, Process};

/// The one user that it knows.
pub const USER: &str = "gateway";

/// The broker, running or not.
pub struct Mosquitto {
    folder: PathBuf,
    port: Port,
    password: String,
    process: Option<Process>,
    reader: Option<Process>,
}

/// What a subscriber was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Where it was published.
    pub topic: String,
    /// As a text.
    pub payload: String,
    /// User properties, `name:value` with spaces between.
    pub properties: String,
}

impl Received {
    /// The value of a user property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.split(' ').find_map(|property| property.strip_prefix(name)?.strip_prefix(':'))
    }
}

impl Mosquitto {
    /// Prepares a broker that takes `password` of [`USER`]; `certificate` and `key` are PEM of its own, `ca` of what they lead to.
    ///
    /// # Errors
    /// Files can't be written, or Debian's packages mosquitto and mosquitto-clients are not there.
    pub fn new(folder: &Path, password: &str, [ca, certificate, key]: [&str; 3]) -> Result<Self> {
        let folder = folder.join("mosquitto");
        fs::create_dir_all(&folder)?;
        let port = Port::reserve()?;
        for (name, text) in [("ca.pem", ca), ("certificate.pem", certificate), ("key.pem", key)] {
            fs::write(folder.join(name), text)?;
        }
        let passwords = folder.join("passwords");
        fs::write(&passwords, format!("{USER}:{password}\n"))?;
        let hashed = Command::new("mosquitto_passwd").arg("-U").arg(&passwords).status();
        ensure!(hashed.context("mosquitto_passwd: install mosquitto and mosquitto-clients")?.success());
        let at = |name: &str| folder.join(name).display().to_string();
        // As root it would become a user who may not read the folder.
        let settings = format!(
            "user root\nlistener {} 127.0.0.1\nallow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}\n\
             persistence true\npersistence_location {}/\nmax_queued_messages 0\nlog_dest stderr\nlog_type all\n",
            port.number(),
            at("passwords"),
            at("certificate.pem"),
            at("key.pem"),
            folder.display(),
        );
        fs::write(folder.join("mosquitto.conf"), settings)?;
        Ok(Self { folder, port, password: password.to_owned(), process: None, reader: None })
    }

    /// `mqtts://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.port.number())
    }

    /// Starts it, with what it kept.
    ///
    /// # Errors
    /// It does not listen.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        let mut process = Process::start(command, "mosquitto", &self.folder)?;
        process.wait_for_line("it runs", |line| line.contains("running"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it; what it has for subscribers it keeps.
    ///
    /// # Errors
    /// It did not run.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.terminate().map(drop)
    }

    /// From now on all messages below `wasmbed/` are received.
    ///
    /// # Errors
    /// The broker does not take the subscription.
    pub fn subscribe(&mut self) -> Result<()> {
        // It writes each line when it comes, and not when it has many.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "mosquitto_sub", "-d", "-V", "mqttv5", "-h", "localhost"])
            .args(["-p", &self.port.number().to_string(), "-u", USER, "-P", &self.password])
            .arg("--cafile")
            .arg(self.folder.join("ca.pem"))
            .args(["-i", "reader", "-c", "-x", "3600", "-q", "1", "-t", "wasmbed/#", "-F", "got %t %p %P"]);
        let mut reader = Process::start(command, "reader", &self.folder)?;
        reader.wait_for_line("subscribed", |line| line.contains("SUBACK"))?;
        self.reader = Some(reader);
        Ok(())
    }

    /// A client that is not ours publishes a message.
    ///
    /// # Errors
    /// The broker does not take it.
    pub fn publish(&self, topic: &str, payload: &str) -> Result<()> {
        let mut command = Command::new("mosquitto_pub");
        command
            .args(["-V", "mqttv5", "-h", "localhost", "-p", &self.port.number().to_string()])
            .args(["-u", USER, "-P", &self.password, "--cafile"])
            .arg(self.folder.join("ca.pem"))
            .args(["-q", "1", "-t", topic, "-m", payload]);
        let output = command.output().context("mosquitto_pub: install mosquitto-clients")?;
        ensure!(output.status.success(), "mosquitto_pub: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What was received so far.
    ///
    /// # Errors
    /// Nothing is subscribed to, or what was received is no message.
    pub fn received(&self) -> Result<Vec<Received>> {
        let printed = self.reader.as_ref().context("nothing is subscribed to")?.printed()?;
        let lines = printed.lines().filter_map(|line| line.strip_prefix("got "));
        lines.map(|line| received(line).with_context(|| format!("no message: {line}"))).collect()
    }
}

fn received(line: &str) -> Option<Received> {
    let mut parts = line.splitn(3, ' ').map(str::to_owned);
    Some(Received { topic: parts.next()?, payload: parts.next()?, properties: parts.next()? })
}

/// PEM of an authority, and of a certificate for `localhost` and its key.
///
/// # Errors
/// They can't be made.
pub fn certificates() -> Result<[String; 3]> {
    // An authority is known by its name.
    let named = |name: &str| {
        let mut names = DistinguishedName::new();
        names.push(DnType::CommonName, name);
        names
    };
    let mut authority = CertificateParams::default();
    authority.distinguished_name = named("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut certificate = CertificateParams::new(["localhost".to_owned()])?;
    certificate.distinguished_name = named("broker");
    let certificate = certificate.signed_by(&key, &issuer)?;
    Ok([ca, certificate.pem(), key.serialize_pem()])
}

/// The Secret `broker`, as a MessageBroker names it.
#[must_use]
pub fn credentials(password: &str) -> Secret {
    let data = [("username", USER), ("password", password)];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.into()))).into();
    let mut object = Secret { data: Some(data), ..Secret::default() };
    object.metadata.name = Some("broker".to_owned());
    object
}
