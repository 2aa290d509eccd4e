/** What the tests of packets in bulk send: parts for burst.c, around the lengths at which something changes. */

/** 1444 is the most in one packet of the tunnel (MTU 1472), 536 the least that merging into TCP packets takes. */
const sizes = words('16 17 63 64 100 535 536 537 1000 1443 1444 1445 1472 1473 2000 2888 2889 9000 16384 32768 65000');

/** Of one UDP_SEGMENT call each: full segments, with and without a short last one, up to the most of them. */
const calls = words(
  '1000x40 100x40 1000x39+500 100x40+16 1444x44 1444x44+1443 1444x2+16 1000x1+999 ' +
    '16x64 17x63+16 535x64 536x64 537x63+536 9x5+8 1000x64',
);

function words(text: string): readonly string[] {
  return text.split(' ');
}

function times<T>(count: number, one: T): readonly T[] {
  return Array.from({ length: count }, () => one);
}

/** Runs of `run` equal ones first, then lengths that change from one to the next, up and down. */
export function datagrams(run: number): readonly string[] {
  return [
    ...sizes.flatMap(size => times(run, size)),
    ...times(Math.ceil(run / 5), [...sizes, ...[...sizes].reverse()]).flat(),
  ];
}

/** Runs of equal ones, all kinds in turn, and between single datagrams of the same flow and of the same length. */
export function messages(run: number): readonly string[] {
  return [
    ...calls.flatMap(call => times(run, call)),
    ...times(Math.ceil(run / 2), calls).flat(),
    ...times(Math.ceil(run / 2), ['1000x3', '1000', '1000', '1000x39+500', '500', '1000']).flat(),
  ];
}
