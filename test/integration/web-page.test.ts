/** The page in a real Chromium: what it shows, on a wide and a narrow screen, and that no text of a peer becomes markup. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Token } from '../../src/admin/access.js';
import type { Status } from '../../src/agent/status.js';
import { Scope } from '../../src/lib/scope.js';
import { noBrowser } from '../support/browser.js';
import { openWebBed, shows, type WebBed } from '../support/web-bed.js';
import { webHosts } from '../support/web-hosts.js';

const secret = 'a-secret-of-32-characters-or-so!';
const hostile = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>';

describe.skipIf(noBrowser)('the page in Chromium', () => {
  const scope = new Scope();
  let bed: WebBed;

  beforeAll(async () => {
    const hosts = webHosts(16).map((host, at) => (at === 0 ? withHostileTexts(host) : host));
    const events = [
      { time: '2026-01-31T08:00:00.123Z', level: 'warn' as const, event: 'peer.silent', message: hostile },
    ];
    bed = await openWebBed(scope, { hosts, events, token: new Token(secret) });
  });
  afterAll(() => scope.close());

  function withHostileTexts(host: Status): Status {
    const [first, ...peers] = host.peers;
    if (!first) throw new Error('a host has peers');
    const named = { ...first, hostName: hostile, nodeId: hostile };
    return {
      ...host,
      peers: [named, ...peers],
      problems: [hostile],
      placedProblems: [],
      rejected: [{ key: hostile, reason: hostile }],
    };
  }

  const text = async (): Promise<string> => String(await bed.browser.evaluate('document.body.innerText'));

  async function go(hash: string, view: 'host' | 'leases' | 'hosts'): Promise<void> {
    await bed.browser.evaluate(`document.getElementById('main').dataset.shown = ''; location.hash = '${hash}'`);
    await bed.browser.until(shows(view));
  }

  test('the token opens it, and the session is hidden from scripts', async () => {
    const { browser, url } = bed;
    await browser.visit(url);
    await browser.until('document.getElementById("token") !== null');
    const submit = (word: string): Promise<unknown> =>
      browser.evaluate(`document.getElementById('token').value = '${word}'; document.forms[0].submit()`);
    await submit('wrong-wrong-wrong');
    await browser.until('document.getElementById("token")?.value === "" && document.readyState === "complete"');
    await submit(secret);
    await browser.until(shows('host'));
    expect(await browser.evaluate('document.cookie')).toBe('');
    expect(await browser.evaluate('location.href')).toBe(url);
    browser.complaints.length = 0;
  });

  test('this host: the truth, problems, peers with their reasons, drops, events, refused leases', async () => {
    const shown = await text();
    for (const part of [
      'ready, 13 of 15 peers answer',
      'no ARP answer: the host is off',
      'worker-08',
      'no_route',
      '312',
    ])
      expect(shown).toContain(part);
    expect(shown).toMatch(/silent 42 m/);
    expect(await bed.browser.evaluate('document.querySelectorAll("tbody tr").length')).toBeGreaterThan(15);
  });

  test('a hostile text stays a text wherever it stands', async () => {
    // A host name, a problem, an event, and both parts of a refused lease.
    expect((await text()).split(hostile).length - 1).toBe(5);
    expect(await bed.browser.evaluate('document.querySelectorAll("img, main script").length')).toBe(0);
    expect(await bed.browser.evaluate('document.title')).toBe('tartan');
  });

  test('the field filters, and keeps its text over new data', async () => {
    const { browser } = bed;
    const rows = 'document.querySelector("section:has(input) tbody").rows.length';
    await browser.evaluate(`const field = document.querySelector('input[type=search]'); field.focus();
      field.value = 'worker-07'; field.dispatchEvent(new Event('input'))`);
    expect(await browser.evaluate(rows)).toBe(1);
    await browser.evaluate('document.getElementById("main").dataset.shown = ""; show()');
    await browser.until(shows('host'));
    expect(await browser.evaluate(rows)).toBe(1);
    expect(await browser.evaluate('document.activeElement.value')).toBe('worker-07');
  });

  test('hosts: a table of who reaches whom, and each host behind a link', async () => {
    const { browser } = bed;
    await go('#hosts', 'hosts');
    expect(await text()).toContain('15 hosts');
    expect(await browser.evaluate('document.querySelectorAll(".matrix tbody tr").length')).toBe(15);
    expect(await browser.evaluate('document.querySelectorAll(".matrix .cell-s").length')).toBeGreaterThan(14);
    const title = await browser.evaluate('document.querySelector(".matrix .cell-s").title');
    expect(title).toMatch(/ → .*: silent; /);
    await browser.evaluate(
      'document.getElementById("main").dataset.shown = ""; document.querySelectorAll(".matrix a")[3].click()',
    );
    await browser.until(shows('hosts'));
    expect(await text()).toContain('198.18.0.4, 10.5.3.0/24');
  });

  test('leases: an etcd that is away is said', async () => {
    await go('#leases', 'leases');
    expect(await text()).toContain('etcd cannot be asked: etcd is silent');
  });

  test.each([
    [1280, 800, 'light'],
    [390, 844, 'light'],
    [390, 844, 'dark'],
  ] as const)('fits a screen of %d by %d, %s', async (width, height, scheme) => {
    const { browser } = bed;
    await browser.size(width, height, scheme);
    for (const [hash, view] of [
      ['#host', 'host'],
      ['#hosts', 'hosts'],
      ['#leases', 'leases'],
    ] as const) {
      await go(hash, view);
      // innerWidth grows with what does not fit.
      expect(await browser.evaluate('document.documentElement.scrollWidth'), hash).toBe(width);
    }
    const lightness = `Number(/\\d+/.exec(getComputedStyle(document.body).backgroundColor)[0])`;
    expect(Number(await browser.evaluate(lightness)) > 128).toBe(scheme === 'light');
  });

  test('nothing was refused by its own policy, and nothing failed', () => {
    expect(bed.browser.complaints).toEqual([]);
  });
});
