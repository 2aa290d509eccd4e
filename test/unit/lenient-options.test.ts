/** Values that flannel takes, or whose meaning is clear; and for the others, the cause by name. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeOptions, parseDaemonOptions, type DaemonOptions } from '../../src/daemon/options.js';
import { messageOf } from '../../src/lib/errors.js';
import { ToolSettings } from '../../src/tool/settings.js';
import { noSettings } from '../support/samples.js';

function parse(words: readonly string[], env: Readonly<Record<string, string>> = {}): DaemonOptions {
  const invocation = parseDaemonOptions(words, env);
  if (invocation.kind !== 'run') throw new Error('it does not run');
  return invocation.options;
}

function refusal(words: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  try {
    parse(words, env);
    return 'accepted';
  } catch (error) {
    return messageOf(error);
  }
}

const endpoints = (text: string): readonly string[] => parse([`--etcd-endpoints=${text}`]).etcd.endpoints;

describe('fault B12: endpoints', () => {
  it.each([
    ['http://a:1, http://b:1', ['http://a:1', 'http://b:1']],
    [' http://a:1 ,\thttp://b:1,', ['http://a:1', 'http://b:1']],
    ['http://a:1,,http://b:1', ['http://a:1', 'http://b:1']],
    ['https://etcd.example', ['https://etcd.example:443']],
    ['HTTP://a:2379', ['http://a:2379']],
    ['https://[2001:db8::1]/', ['https://[2001:db8::1]:443']],
    ['http://etcd.example.:2379', ['http://etcd.example.:2379']],
    ['https://etcd.example.', ['https://etcd.example:443']],
    ['etcd-1:02379', ['http://etcd-1:2379']],
  ])('fault B12: %j is clear', async (text, expected) => {
    expect(endpoints(text)).toEqual(expected);
    const { options } = await new ToolSettings({ etcdEndpoints: text }, {}, noSettings).etcd();
    expect(options.endpoints).toEqual(expected);
  });

  it.each([
    ['http://a:2379\r', 'ends with a carriage return'],
    ['http://a:1\r,http://b:1', 'ends with a carriage return'],
    ['http://a:1\nhttp://b:1', 'has a line feed'],
    ['"http://a:1"', 'begins with a quote'],
    ['\u201chttp://a:1\u201d', 'begins with a quote'],
    ['\ufeffhttp://a:1', 'begins with a byte order mark'],
    ['http://a:1\u00a0', 'begins or ends with a space'],
    ['http://a\u200b:1', 'a character in it that is not seen'],
    ['http://a:1 http://b:1', 'separated by commas'],
    ['http://a:1;http://b:1', 'separated by commas'],
    ['http://a', 'no port, that of etcd is 2379'],
    ['etcd.example', 'no port, that of etcd is 2379'],
    ['http://a:', 'no port'],
    ['http://2001:db8::1:2379', 'needs brackets'],
    ['http://a:2379/v2', 'has a path'],
    ['tcp://a:2379', "its scheme is 'tcp'"],
    ['http://:2379', 'no host'],
    ['http://a_:2379', "'a_' is no host name"],
    ['http://10.5.1:2379', "'10.5.1' is no IPv4 address"],
    ['http://a:99999', 'port 99999'],
    [',', 'it is empty'],
  ])('fault B12: of %j the cause is named', (text, cause) => {
    const message = refusal([`--etcd-endpoints=${text}`]);
    expect(message).toContain('is not an endpoint (');
    expect(message).toContain(cause);
    expect(message).toContain('expected http://host:port or https://host:port');
  });

  it('fault B12: so it is for every flag', () => {
    expect(refusal([], { TARTAN_IP_MASQ: 'true\r' })).toMatch(/TARTAN_IP_MASQ: 'true\?' .*carriage return/);
    expect(refusal(['--iptables-resync="5"'])).toMatch(/begins with a quote.*whole number/);
    expect(refusal([], { TARTAN_STATE_DIR: '/var/lib/tartan\r' })).toContain('carriage return');
  });
});

describe('fault B14, F8: relative paths', () => {
  it('fault B14: are resolved against the working directory, and shown absolute', () => {
    const options = parse(['--state-dir=state', '--run-dir=./run/', '--docker-daemon-json=../daemon.json']);
    const here = (path: string): string => join(process.cwd(), path);
    expect(options).toMatchObject({
      stateDir: here('state'),
      runDir: here('run'),
      dockerEnvFile: here('run/docker.env'),
      docker: { daemonJsonFile: here('../daemon.json') },
    });
    expect(describeOptions(options)).toMatchObject({ stateDir: here('state') });
  });

  it('fault B14: TLS files too, in messages as well, in the tool as in the daemon', async () => {
    const words = ['--etcd-endpoints=https://a:1', '--etcd-cafile=pki/nowhere.pem'];
    expect(refusal(words)).toContain(join(process.cwd(), 'pki/nowhere.pem'));
    const files = { etcdEndpoints: 'http://a:1', etcdCafile: 'ca.pem', etcdCertfile: 'c.pem', etcdKeyfile: 'k.pem' };
    expect((await new ToolSettings(files, {}, noSettings).etcd()).options).toMatchObject({
      caFile: join(process.cwd(), 'ca.pem'),
      certFile: join(process.cwd(), 'c.pem'),
      keyFile: join(process.cwd(), 'k.pem'),
    });
  });

  it('fault F8: a relative --subnet-file, and a health listener by name or on all addresses', () => {
    expect(parse(['--subnet-file=subnet.env']).subnetFile).toBe(join(process.cwd(), 'subnet.env'));
    const healthz = (ip: string) => parse(['--healthz-port=1', `--healthz-ip=${ip}`]).healthz;
    expect(healthz('localhost')).toEqual({ ip: '127.0.0.1', port: 1 });
    expect(healthz('')).toEqual({ ip: '0.0.0.0', port: 1 });
    expect(healthz('node-1.example')).toEqual({ ip: 'node-1.example', port: 1 });
    for (const ip of ['127.0.0.256', 'a b', '[::1]', '1.2.3', 'x:1'])
      expect(refusal(['--healthz-port=1', `--healthz-ip=${ip}`])).toContain('--healthz-ip');
  });
});

describe("fault F7: --iface-regex in Go's syntax", () => {
  it.each([
    ['^[[:alpha:]]+[[:digit:]]$', 'eth0', 'eth10'],
    ['\\Aeth0\\z', 'eth0', 'eth0x'],
    ['^\\pL+\\d$', 'eth0', '0eth'],
    ['(?P<kind>eth|ens)[0-9]', 'ens3', 'wlan0'],
    ['^\\Qeth.1\\E$', 'eth.1', 'ethx1'],
    ['(?s)^e.h', 'e\nh', 'eh'],
    ['(?i)^ETH', 'eth0', 'wlan0'],
    ['^(?i:ETH)0', 'eth0', 'eth1'],
    ['^192\\.0\\.2\\.', '192.0.2.1', '192.0.20.1'],
  ])('fault F7: %s takes %j and not %j', (pattern, yes, no) => {
    const [compiled] = parse([`--iface-regex=${pattern}`]).ifaceRegex;
    expect([compiled?.test(yes), compiled?.test(no)]).toEqual([true, false]);
  });

  it.each([
    ['eth(', 'missing closing ): `eth(`'],
    ['(?=eth)', '`(?=`'],
    ['(e)\\1', '`\\1`'],
    ['[[:foo:]]', '`[:foo:]`'],
    ['e**', '`**`'],
    [`e${'x'.repeat(1024)}`, 'at most 1024 characters'],
  ])('fault F7: of %s the part at fault is named', (pattern, part) => {
    expect(refusal([`--iface-regex=${pattern}`])).toContain(part);
  });

  it('fault F7: a pattern that takes for ever elsewhere does not here', () => {
    const [pattern] = parse(['--iface-regex=^(a+)+$']).ifaceRegex;
    const begun = performance.now();
    expect(pattern?.test(`${'a'.repeat(5000)}b`)).toBe(false);
    expect(performance.now() - begun).toBeLessThan(5000);
  });
});
