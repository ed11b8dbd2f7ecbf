//! Bytes that claim to be a statement, whatever they are.

use wasmbed_statement::{CERTIFICATES_MAX, Order, Proof, SignedOrder, SignedProof};

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// An order.
    Order,
    /// A proof.
    Proof,
    /// Neither.
    Nothing,
}

/// Reads them as both, and holds what is read to what is written.
pub fn accept(bytes: &[u8]) -> Taken {
    let mut taken = Taken::Nothing;
    if let Ok(signed) = SignedOrder::decode(bytes) {
        taken = Taken::Order;
        assert!((1..=CERTIFICATES_MAX).contains(&signed.chain().len()));
        let Order { device, .. } = signed.order();
        assert!(device.len() < bytes.len());
        let mut signature = Vec::new();
        let verified = signed.verify(|message, given| {
            assert!(message.len() < bytes.len() + 64 && (8..=72).contains(&given.len()));
            signature = given.to_vec();
            Ok::<_, ()>(())
        });
        assert!(verified.is_ok());
        let again = signed.order().sign(signed.chain(), |_| Ok::<_, ()>(signature.clone()));
        assert_eq!(again.as_deref(), Ok(bytes), "there is one encoding");
    }
    if let Ok(signed) = SignedProof::decode(bytes) {
        assert_eq!(taken, Taken::Nothing, "an order is no proof");
        taken = Taken::Proof;
        let mut signature = Vec::new();
        let verified = signed.verify(|_, given| {
            signature = given.to_vec();
            Ok::<_, ()>(())
        });
        assert!(verified.is_ok());
        let proof: Proof = *signed.proof();
        let again = proof.sign(|_| Ok::<_, ()>(signature.clone()));
        assert_eq!(again.as_deref(), Ok(bytes), "there is one encoding");
    }
    taken
}
