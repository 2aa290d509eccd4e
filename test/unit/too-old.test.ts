import { expect, test } from 'vitest';
import { whyTooOld } from '../../src/datapath/kernel/too-old.js';

test.each(['6.1.0-40-amd64', '6.1', '6.12.43+deb13-cloud-amd64', '7.0.0-rc1', '10.0.1'])(
  '%s: auto uses it',
  release => {
    expect(whyTooOld(release)).toBeUndefined();
  },
);

test.each(['5.10.0-36-amd64', '5.15.0', '6.0.19', '4.19.0', ''])('%s: auto does not', release => {
  expect(whyTooOld(release)).toBe(
    `Linux ${release} is older than 6.1, from which on --engine=auto uses the kernel engine; --engine=kernel uses it all the same`,
  );
});
