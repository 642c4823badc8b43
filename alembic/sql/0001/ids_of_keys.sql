-- Returns for each message the id of the earlier one to the same address with the same key, in the log or, if these begin
-- with `first_id`, among themselves; NULL if there is none. Runs under the lock on the addresses.
CREATE FUNCTION {schema}.ids_of_keys(addresses text[], keys text[], first_id bigint) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT coalesce(
            (SELECT m.id FROM {schema}.message AS m WHERE m.address = sent.address AND m.key = sent.key ORDER BY m.id LIMIT 1),
            CASE WHEN sent.n > sent.first THEN first_id + sent.first - 1 END
        )
        FROM (
            SELECT address, key, n, CASE WHEN key IS NOT NULL THEN min(n) OVER (PARTITION BY address, key) END AS first
            FROM unnest(addresses, keys) WITH ORDINALITY AS given (address, key, n)
        ) AS sent
        ORDER BY sent.n
    );
END
$$
