use super::*;

fn chunks(world: &World, id: SessionId) -> Vec<(u32, usize)> {
    let bodies = world.raw.get(&id).into_iter().flatten();
    bodies
        .filter_map(|body| match decode_gateway(body).unwrap() {
            GatewayMessage::ModuleChunk(chunk) => Some((chunk.offset, chunk.bytes.len())),
            _ => None,
        })
        .collect()
}

fn get(digest: ModuleDigest, offset: u32, length: u16) -> DeviceMessage<'static> {
    DeviceMessage::ModuleGet(ModuleGet { digest, offset, length })
}

#[test]
fn exactly_the_range_is_sent_from_any_offset() {
    let mut world = World::synced();
    world.device("a");
    let module = vec![7; 10_000];
    let digest = world.upload(&module);
    world.put(1, vec![set("a", 1, vec![entry(1, digest, 10_000)])]).unwrap();
    let id = world.hello("a", 0, 0);
    world.send(id, &get(digest, 100, 9_000));
    assert_eq!(chunks(&world, id), [(100, 4_000), (4_100, 4_000), (8_100, 1_000)]);
    world.send(id, &get(digest, 9_100, 16_384));
    assert_eq!(chunks(&world, id)[3..], [(9_100, 900)], "the module ends before the range");
}

#[test]
fn only_modules_of_the_own_set_are_given() {
    let mut world = World::synced();
    world.device("a");
    world.device("b");
    let digest = world.upload(b"module");
    world.put(1, vec![set("b", 1, vec![entry(1, digest, 6)])]).unwrap();
    let id = world.hello("a", 0, 0);
    world.take(id);
    world.send(id, &get(digest, 0, 6));
    assert!(world.take(id)[0].starts_with("ModuleGone"));
}

#[test]
fn a_spoilt_file_is_gone_and_asked_for_again() {
    let mut world = World::synced();
    world.device("a");
    let digest = world.upload(b"module");
    let assignments = vec![entry(1, digest, 6)];
    world.put(1, vec![set("a", 1, assignments.clone())]).unwrap();
    world.modules.clear();
    let id = world.hello("a", 0, 0);
    world.take(id);
    world.send(id, &get(digest, 0, 6));
    assert!(world.take(id)[0].starts_with("ModuleGone"));
    let refused = world.put(1, vec![set("a", 1, assignments)]).unwrap().refused;
    assert_eq!(refused[0].missing_modules, [digest.to_string()]);
}

#[test]
fn a_heartbeat_answer_overtakes_a_download() {
    let mut world = World::synced();
    world.device("a");
    let digest = world.upload(&vec![1; 16_000]);
    world.put(1, vec![set("a", 1, vec![entry(1, digest, 16_000)])]).unwrap();
    let id = world.hello("a", 0, 0);
    world.send(id, &get(digest, 0, 1));
    let mut frame = [0; FRAME_BYTES_MAX];
    for message in [get(digest, 0, 16_000), heartbeat(1)] {
        let length = encode_device(&message, &mut frame).unwrap();
        world.gateway.handle_frame(world.now, id, &frame[2..length]);
    }
    let transmit = world.gateway.poll_transmit(world.now, id, &mut frame);
    assert!(transmit.heartbeat);
    world.settle();
    assert_eq!(chunks(&world, id).len(), 5);
}

#[test]
fn uploads_are_bounded_and_make_room() {
    let mut world = World::with(Config { modules_bytes_max: 10, ..Config::new("gw", "b") });
    world.list();
    world.device("a");
    let first = world.upload(b"12345");
    world.put(1, vec![set("a", 1, vec![entry(1, first, 5)])]).unwrap();
    let second = world.upload(b"67890");
    let third = ModuleDigest([3; 32]);
    let plan = |world: &mut World, bytes| world.gateway.plan_upload(world.now, third, bytes);
    assert_eq!(plan(&mut world, 5), UploadDecision::NoSpace);
    assert_eq!(plan(&mut world, 0), UploadDecision::BadSize);
    assert_eq!(plan(&mut world, (1 << 20) + 1), UploadDecision::BadSize);
    world.advance(70_000);
    assert_eq!(plan(&mut world, 5), UploadDecision::Accept);
    world.settle();
    assert!(!world.modules.contains_key(&second) && world.modules.contains_key(&first));
}
