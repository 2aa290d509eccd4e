import { beforeEach, describe, expect, it } from 'vitest';
import type { Status } from '../../src/agent/status.js';
import { formatIpv4, type Ipv4 } from '../../src/model/ip.js';
import type { EchoQuestion } from '../../src/tool/echo.js';
import type { StatusReading } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, sampleStatus, unexpected } from '../support/samples.js';

let reading: StatusReading;
/** Round trip in ms, or a reason, by address. */
let answers: Record<string, number | string>;
let questions: EchoQuestion[];
let calls: string[];

beforeEach(() => {
  [answers, questions, calls] = [{}, [], []];
});

async function run(line: string) {
  let [out, err] = ['', ''];
  const io = {
    env: {},
    stdout: (text: string) => void (out += text),
    stderr: (text: string) => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: {
      ...noPorts,
      readStatus: async (runDir: string) => {
        calls.push(`status ${runDir}`);
        return reading;
      },
      openEcho: async () => ({
        ping: async (address: Ipv4, question: EchoQuestion) => {
          questions.push(question);
          const answer = answers[formatIpv4(address)] ?? 'no answer';
          return typeof answer === 'number' ? { rttMs: answer } : { reason: answer };
        },
        close: () => void calls.push('close'),
      }),
    },
  };
  const words = line.split(' ').filter(word => word !== '');
  return { status: await runTool(['/usr/bin/node', '/usr/bin/tartan', 'ping', ...words], io), out, err };
}

describe('ping', () => {
  beforeEach(() => {
    const peers = ['2', '3'].map(n => ({
      subnet: `10.5.${n}.0/24`,
      publicIp: `192.0.2.${n}`,
      nodeId: `node-${n}`,
      state: 'live' as const,
      secondsLeft: null,
      hostName: `host-${n}`,
      backend: 'udp',
      watched: null,
    }));
    reading = { kind: 'status', status: { ...sampleStatus, peers } };
  });

  it('asks every peer at its tunnel address and exits 2 when one is silent', async () => {
    answers = { '10.5.2.0': 0.5 };
    const outcome = await run('-c 2');
    expect(outcome).toMatchObject({ status: 2, err: '' });
    expect(outcome.out.split('\n')).toEqual([
      'PEER         PUBLIC IP  ENGINE  ANSWERS  RTT      REASON',
      '10.5.2.0/24  192.0.2.2  -       2 of 2   0.50 ms',
      '10.5.3.0/24  192.0.2.3  -       0 of 2   -        no answer',
      '',
    ]);
    expect(calls).toEqual(['status /run/tartan', 'close']);
  });

  it.each(['10.5.3.0/24', '192.0.2.3', 'node-3', 'host-3', '10.5.3.77'])('finds the peer by %s', async target => {
    answers = { '10.5.3.0': 1.25, '10.5.3.77': 1.25 };
    const outcome = await run(`-o json ${target}`);
    expect(outcome.status).toBe(0);
    expect(JSON.parse(outcome.out)).toMatchObject({
      apiVersion: 'tartan/v1',
      kind: 'PingList',
      items: [{ subnet: '10.5.3.0/24', sent: 3, received: 3, rttMs: 1.25, reason: null }],
    });
  });

  it('has a size and DF, and tells why a packet did not pass', async () => {
    answers = { '10.5.2.0': 'fragmentation needed, MTU 1372 (from 10.5.1.1)' };
    const outcome = await run('-c 1 --size 1472 --df host-2');
    expect(outcome.status).toBe(2);
    expect(outcome.out).toContain('0 of 1   -    fragmentation needed, MTU 1372 (from 10.5.1.1)');
    expect(questions).toEqual([{ timeoutMs: 1000, payloadBytes: 1444, df: true }]);
    for (const size of ['27', '65536', '1e3', '-1', ''])
      expect((await run(`--size=${size}`)).err).toMatch(/expected 28 to 65535/);
  });

  it('asks all hosts of one name', async () => {
    const { peers, ...rest } = (reading as { status: Status }).status;
    const twins = peers.map(peer => ({ ...peer, hostName: 'twin' }));
    reading = { kind: 'status', status: { ...rest, peers: twins } };
    answers = { '10.5.2.0': 1, '10.5.3.0': 1 };
    expect((JSON.parse((await run('-o json twin')).out) as { items: unknown[] }).items).toHaveLength(2);
  });

  it('says what is no peer, what is no count, and that there is no daemon', async () => {
    expect(await run('10.9.9.9')).toMatchObject({
      status: 1,
      err: expect.stringContaining("'10.9.9.9' is no peer"),
    });
    expect((await run('-c 0')).status).toBe(64);
    reading = { kind: 'unreachable', reason: 'there is no socket' };
    expect((await run('')).status).toBe(4);
  });
});

describe('fault U6: ping where there is nobody to ask', () => {
  it('fault U6: no peers is no success: exit 2 with a word', async () => {
    reading = { kind: 'status', status: { ...sampleStatus, phase: 'ready', ready: true, peers: [] } };
    const outcome = await run('');
    expect(outcome).toMatchObject({ status: 2, out: '' });
    expect(outcome.err).toMatch(/knows no peers.*tartan leases/);
  });

  it('fault U6: before the daemon is ready it says which state that is', async () => {
    const phase = 'waiting-for-network';
    reading = { kind: 'status', status: { ...sampleStatus, phase, ready: false, peers: [] } };
    const outcome = await run('-o json');
    expect(outcome.status).toBe(2);
    expect(outcome.err).toMatch(/not ready \(waiting-for-network\).*tartan status/);
    expect(JSON.parse(outcome.out)).toMatchObject({ kind: 'PingList', items: [] });
  });

  it('fault U6: without a daemon it exits 4', async () => {
    reading = { kind: 'unreachable', reason: 'there is no socket' };
    expect(await run('')).toMatchObject({ status: 4, err: expect.stringContaining('there is no socket') });
  });
});
