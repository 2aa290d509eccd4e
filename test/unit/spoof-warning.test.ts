import { expect, test } from 'vitest';
import { SpoofWarning } from '../../src/datapath/tun/spoof-warning.js';

test('fault F12: packets dropped as spoofed are told, with the flag that passes them, until a minute after the last', () => {
  const warning = new SpoofWarning();
  expect(warning.texts({}, 0)).toEqual([]);
  expect(warning.texts({ tx_spoof_src: 0, rx_spoof_src: 0, rx_ok: 9 }, 1000)).toEqual([]);
  const said = expect.stringMatching(/2 from this host .*3 from peers .*--no-source-check/);
  expect(warning.texts({ tx_spoof_src: 2, rx_spoof_src: 3 }, 2000)).toEqual([said]);
  expect(warning.texts({ tx_spoof_src: 2, rx_spoof_src: 3 }, 61_999)).toEqual([said]);
  expect(warning.texts({ tx_spoof_src: 2, rx_spoof_src: 3 }, 62_000)).toEqual([]);
  expect(warning.texts({ tx_spoof_src: 2, rx_spoof_src: 4 }, 70_000)).toHaveLength(1);
});

test('what an adopted data process dropped before is not told again', () => {
  const warning = new SpoofWarning({ tx_spoof_src: 2, rx_spoof_src: 3 });
  expect(warning.texts({ tx_spoof_src: 2, rx_spoof_src: 3 }, 0)).toEqual([]);
  expect(warning.texts({ tx_spoof_src: 3, rx_spoof_src: 3 }, 1000)).toHaveLength(1);
});
