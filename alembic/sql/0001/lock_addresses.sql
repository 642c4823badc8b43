-- Makes everybody who sends to these addresses, or begins to host them, wait for the end of this transaction.
-- Ids that are taken behind this lock grow in commit order. All take the stripes in one order: no deadlock.
CREATE FUNCTION {schema}.lock_addresses(addresses text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{schema}'), locked.stripe)
    FROM (SELECT DISTINCT hashtext(address) & 63 AS stripe FROM unnest(addresses) AS address ORDER BY stripe) AS locked;
END
$$
