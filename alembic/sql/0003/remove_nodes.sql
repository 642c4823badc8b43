-- Removes nodes with everything that they hosted. Where the lease has ended, it also ends the sessions in which the node
-- listens; a node that closes has ended them itself. One statement after the other: each sees what was committed before it.
CREATE OR REPLACE FUNCTION {schema}.remove_nodes(nodes uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    gone record;
BEGIN
    FOR gone IN DELETE FROM {schema}.node WHERE id = ANY (nodes) RETURNING id, leased_until LOOP
        IF gone.leased_until < clock_timestamp() THEN
            PERFORM {schema}.end_listening(gone.id);
        END IF;
    END LOOP;
    DELETE FROM {schema}.lease WHERE node = ANY (nodes);
    DELETE FROM {schema}.subscription WHERE node = ANY (nodes);
    DELETE FROM {schema}.full_channel WHERE node = ANY (nodes);
END
$$
