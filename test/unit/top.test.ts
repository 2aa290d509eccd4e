import { describe, expect, it } from 'vitest';
import type { PeerWatched, Status, StatusPeer } from '../../src/agent/status.js';
import type { StatusReading } from '../../src/tool/ports.js';
import { isDrop, ratesOf } from '../../src/tool/rates.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, sampleStatus, unexpected, unmeasured } from '../support/samples.js';

const datapath: NonNullable<Status['datapath']> = {
  engine: 'tun',
  pid: 1,
  threads: 1,
  generationPublished: 1,
  generationAdopted: 1,
  respawns: 0,
  features: [],
  warnings: [],
  kernel: null,
  counters: {},
};

const peer = (n: number, watched: Partial<PeerWatched> | null): StatusPeer => ({
  ...(sampleStatus.peers[0] as StatusPeer),
  subnet: `10.5.${n}.0/24`,
  hostName: `host-${n}`,
  watched: watched && { ...unmeasured, ...watched },
});

const at = (counters: Record<string, number>, peers: readonly StatusPeer[] = []): Status => ({
  ...sampleStatus,
  datapath: { ...datapath, counters },
  peers,
});

const traffic = (packets: number, bytes: number) => ({ packets, bytes });

describe('rates between two readings', () => {
  it('are by second, of inner packets and of each reason of a drop', () => {
    const rates = ratesOf(
      at({ rx_ok: 10, rx_bytes: 1000, tx_ok: 0, tx_bytes: 0, rx_not_member: 5, tx_noroute: 1, rx_port: 0 }),
      at({ rx_ok: 30, rx_bytes: 3000, tx_ok: 4, tx_bytes: 500, rx_not_member: 25, tx_noroute: 1, rx_port: 9 }),
      2,
      new Date(0),
    );
    expect(rates).toMatchObject({
      apiVersion: 'tartan/v1',
      kind: 'Rates',
      time: '1970-01-01T00:00:00.000Z',
      received: { packetsPerSecond: 10, bitsPerSecond: 8000 },
      sent: { packetsPerSecond: 2, bitsPerSecond: 2000 },
      drops: [{ counter: 'rx_not_member', perSecond: 10, total: 25 }],
    });
  });

  it('of peers: the most traffic first; a new peer has none yet, a new data process counts from zero', () => {
    const before = [peer(2, { sent: traffic(5, 500) }), peer(3, { received: traffic(100, 9000) })];
    const now = [
      peer(2, { state: 'up', sent: traffic(15, 1500), loss: 0.25 }),
      peer(3, { received: traffic(50, 5000) }),
      peer(4, { sent: traffic(7, 700) }),
      peer(5, null),
    ];
    const { peers } = ratesOf(at({}, before), at({}, now), 1, new Date(0));
    expect(peers.map(({ subnet }) => subnet)).toEqual(['10.5.3.0/24', '10.5.2.0/24', '10.5.4.0/24', '10.5.5.0/24']);
    expect(peers[0]?.received).toEqual({ packetsPerSecond: 50, bitsPerSecond: 40_000 });
    expect(peers[1]).toMatchObject({ state: 'up', loss: 0.25, sent: { packetsPerSecond: 10, bitsPerSecond: 8000 } });
    expect(peers[2]?.sent.bitsPerSecond).toBe(0);
  });

  it.each([
    ['rx_not_member', true],
    ['tx_error_perm', true],
    ['rx_ok', false],
    ['tx_bytes', false],
    ['rx_trimmed', false],
    ['icmp_sent', false],
  ])('%s counts packets that were not passed on: %s', (counter, expected) => expect(isDrop(counter)).toBe(expected));
});

/** @param readings the last one is given again and again */
async function top(line: string, readings: readonly StatusReading[], isTty = false) {
  let [out, err, released, asked] = ['', '', 0, 0];
  const stop = new AbortController();
  const io = {
    env: { NO_COLOR: '1' },
    stdout: (text: string) => void (out += text),
    stderr: (text: string) => void (err += text),
    stdin: unexpected,
    isTty,
    ports: {
      ...noPorts,
      readStatus: async () => {
        // An operator's Ctrl-C, after everything was shown.
        if (asked >= readings.length) stop.abort();
        return readings[Math.min(asked++, readings.length - 1)] as StatusReading;
      },
      terminal: {
        size: () => ({ rows: 6, columns: 30 }),
        onInterrupt: () => ({ signal: stop.signal, release: () => void released++ }),
      },
    },
  };
  const words = line.split(' ').filter(word => word !== '');
  const status = await runTool(['/usr/bin/node', '/usr/bin/tartan', 'top', '-i', '0.1', ...words], io);
  return { status, out, err, released };
}

const known = (status: Status): StatusReading => ({ kind: 'status', status });
const first = known(at({ rx_ok: 0, rx_bytes: 0, rx_bad_csum: 0 }, [peer(2, {})]));
const second = known(
  at({ rx_ok: 100, rx_bytes: 1e6, rx_bad_csum: 3 }, [peer(2, { state: 'up', received: traffic(100, 1e6) })]),
);
const away: StatusReading = { kind: 'unreachable', reason: 'there is no socket' };

describe('tartan top', () => {
  it('prints blocks where there is no terminal, as often as was asked for', async () => {
    const outcome = await top('--count 2', [first, second, second]);
    expect(outcome).toMatchObject({ status: 0, err: '', released: 1 });
    expect(outcome.out).not.toContain('\u001b');
    expect(outcome.out.match(/^in .* packets\/s; out 0 bit\/s, 0 packets\/s; dropped /gm)).toHaveLength(2);
    expect(outcome.out).toMatch(/^DROPPED AS {3}PACKETS\/S {2}TOTAL\nrx_bad_csum {2}\d+(\.\d)? +3$/m);
    expect(outcome.out).toMatch(/^10\.5\.2\.0\/24 {2}host-2 {2}up +[\d.]+ Mbit\/s /m);
  });

  it('prints a line of JSON each', async () => {
    const { out, status } = await top('-o json -n 1', [first, second]);
    expect(status).toBe(0);
    expect(out.trim().split('\n')).toHaveLength(1);
    expect(JSON.parse(out)).toMatchObject({ kind: 'Rates', drops: [{ counter: 'rx_bad_csum', total: 3 }] });
  });

  it('keeps one screen on a terminal, within its size, and gives it back after an interrupt', async () => {
    const outcome = await top('', [first, second], true);
    expect(outcome).toMatchObject({ status: 0, err: '', released: 1 });
    expect(outcome.out.startsWith('\u001b[?1049h\u001b[?25l')).toBe(true);
    expect(outcome.out.endsWith('\u001b[?25h\u001b[?1049l')).toBe(true);
    const frames = outcome.out.split('\u001b[H\u001b[J').slice(2);
    expect(frames.length).toBeGreaterThan(0);
    for (const frame of frames) {
      const lines = frame.replaceAll(/\u001b\[[?\d]*[a-z]/g, '').split('\n');
      expect(lines.length).toBeLessThanOrEqual(5);
      expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(30);
    }
  });

  it('goes on while the daemon is restarted, and ends with 4 when none was there', async () => {
    const outcome = await top('-n 3', [first, away, second, second]);
    expect(outcome).toMatchObject({ status: 0, err: 'note: tartand cannot be asked: there is no socket\n' });
    expect(outcome.out).toContain('rx_bad_csum');
    expect(await top('-n 1', [away])).toMatchObject({ status: 4, out: '', released: 0 });
  });

  it.each(['-i 0', '-i 0.05', '-i 3601', '-i 1e3', '-n 0', '-i -1'])('%s is 64', async line => {
    expect((await top(line, [first])).status).toBe(64);
  });
});
