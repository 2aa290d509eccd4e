/** The engine kernel between real daemons: containers' packets pass no process, whoever of ours is dead. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, async opened => {
  await opened.bringUp();
});

test('containers of two hosts talk by the kernel: numbered packets, and a transfer with its checksum', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  await a.untilByKernel(b);
  await b.untilByKernel(a);
  // Questions go by this port whatever carries the packets.
  const capture = await lab().captureUnderlay('udp port 8285 and udp[8] & 0xf0 = 0x40');
  const { sent, received } = await lab().transfer(a, b, 50_000_000);
  expect({ ...received, source: '' }).toEqual({ ...sent, source: '' });
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  await delay(1000);
  expect(await out.stop()).toMatchObject({ lost: 0, duplicates: 0, reordered: 0, source: a.containerAddress });
  expect(await back.stop()).toMatchObject({ lost: 0, duplicates: 0, reordered: 0, source: b.containerAddress });
  expect(await capture.stop()).toEqual([]);
});

test('tartand and the data process of a host are killed, and start again: none of 1000 a second each way is lost', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  await a.untilByKernel(b);
  await b.untilByKernel(a);
  // The file of the pairs is written each second.
  await delay(1500);
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  const pid = await a.datapathPid();
  await a.stopDaemon('SIGKILL');
  process.kill(pid, 'SIGKILL');
  await delay(1000);
  const before = await a.sentByKernel();
  await a.startDaemon().waitForEvent('daemon.ready');
  await lab().waitForRoutes();
  await delay(2000);
  expect(await a.sentByKernel()).toBeGreaterThan(before + 1500);
  expect(await out.stop()).toMatchObject({ lost: 0, duplicates: 0, reordered: 0 });
  expect(await back.stop()).toMatchObject({ lost: 0, duplicates: 0, reordered: 0 });
});

test('the network document switches the engine off and on: none of 1000 a second each way is lost', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  await a.untilByKernel(b);
  const [out, back] = [await lab().flow(a, b), await lab().flow(b, a)];
  await lab().setNetwork('{"Network":"10.5.0.0/16","Backend":{"Type":"udp"},"Engine":"user"}');
  await until('user space', async () => {
    const before = await a.sentByKernel();
    await delay(300);
    return (await a.sentByKernel()) < before + 20;
  });
  await lab().setNetwork();
  await a.untilByKernel(b);
  const reports = [await out.stop(), await back.stop()];
  expect(reports.map(({ lost, duplicates }) => [lost, duplicates])).toEqual([
    [0, 0],
    [0, 0],
  ]);
});

test('cleanup leaves nothing of it', async () => {
  const a = lab().node('a');
  await a.stopDaemon();
  expect((await a.tool('cleanup')).status).toBe(0);
  expect(await a.run('ip', '-o', 'link')).not.toContain('tartan');
});
