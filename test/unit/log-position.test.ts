import { expect, test } from 'vitest';
import { parseLsn } from '../../lib/lsn.ts';
import { lastRecordEnd } from '../../lib/postgres/log-position.ts';

const USUAL = { page_bytes: 8192, segment_bytes: 16 * 1024 * 1024 };

test.each([
  ['behind the header of a page: its beginning', '0/3002018', '0/3002000', USUAL],
  ['behind the header of a segment: its beginning', '0/4000028', '0/4000000', USUAL],
  ['in the middle of a page', '0/3002068', '0/3002068', USUAL],
  ['as far into a page as a segment’s header is long', '0/3002028', '0/3002028', USUAL],
  ['at a page’s end', '0/3002000', '0/3002000', USUAL],
  ['of larger pages', '0/3004018', '0/3004000', { ...USUAL, page_bytes: 16_384 }],
  ['no page of larger pages begins there', '0/3002018', '0/3002018', { ...USUAL, page_bytes: 16_384 }],
  ['a page of a segment that is larger', '0/5000028', '0/5000028', { ...USUAL, segment_bytes: 64 * 1024 * 1024 }],
])('%s', (_, insert, end, sizes) => {
  expect(lastRecordEnd(parseLsn(insert), sizes)).toBe(parseLsn(end));
});
