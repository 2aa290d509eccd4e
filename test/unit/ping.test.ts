import { describe, expect, it } from 'vitest';
import type { StatusReading } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, sampleStatus, unexpected } from '../support/samples.js';

async function ping(reading: StatusReading, ...words: readonly string[]) {
  let [out, err] = ['', ''];
  const io = {
    env: {},
    stdout: (text: string) => void (out += text),
    stderr: (text: string) => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: { ...noPorts, readStatus: async () => reading },
  };
  return { status: await runTool(['/usr/bin/node', '/usr/bin/tartan', 'ping', ...words], io), out, err };
}

describe('fault U6: ping where there is nobody to ask', () => {
  it('fault U6: no peers is no success: exit 2 with a word', async () => {
    const alone = { kind: 'status', status: { ...sampleStatus, phase: 'ready', ready: true, peers: [] } } as const;
    const outcome = await ping(alone);
    expect(outcome).toMatchObject({ status: 2, out: '' });
    expect(outcome.err).toMatch(/knows no peers.*tartan leases/);
  });

  it('fault U6: before the daemon is ready it says which state that is', async () => {
    const phase = 'waiting-for-network';
    const outcome = await ping(
      { kind: 'status', status: { ...sampleStatus, phase, ready: false, peers: [] } },
      '-o',
      'json',
    );
    expect(outcome.status).toBe(2);
    expect(outcome.err).toMatch(/not ready \(waiting-for-network\).*tartan status/);
    expect(JSON.parse(outcome.out)).toMatchObject({ kind: 'PingList', items: [] });
  });

  it('fault U6: without a daemon it exits 4', async () => {
    const outcome = await ping({ kind: 'unreachable', reason: 'there is no socket' });
    expect(outcome).toMatchObject({ status: 4, err: expect.stringContaining('there is no socket') });
  });
});
