-- Returns the last id of a message in a slot, NULL if it is empty. Probes the index once for each address.
CREATE FUNCTION {schema}.last_id_in(searched smallint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_indexscan = on
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE latest AS (
            (
                SELECT m.address, m.id FROM {schema}.message AS m
                WHERE m.slot = searched ORDER BY m.address DESC, m.id DESC LIMIT 1
            )
            UNION ALL
            SELECT previous.address, previous.id FROM latest CROSS JOIN LATERAL (
                SELECT m.address, m.id FROM {schema}.message AS m
                WHERE m.slot = searched AND m.address < latest.address ORDER BY m.address DESC, m.id DESC LIMIT 1
            ) AS previous
        )
        SELECT max(id) FROM latest
    );
END
$$
