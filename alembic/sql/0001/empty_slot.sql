-- Returns an empty slot; makes a new one if there is none and others are locked. Returns NULL if it is only too early.
CREATE FUNCTION {schema}.empty_slot(others_are_locked boolean) RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found smallint;
BEGIN
    SELECT min(number) INTO found FROM generate_series(0, CASE WHEN others_are_locked THEN 31 ELSE 2 END) AS number
    WHERE number NOT IN (SELECT slot FROM {schema}.filled_slot) AND number NOT IN (SELECT slot FROM {schema}.log_state);
    IF found IS NOT NULL THEN
        PERFORM {schema}.make_slot(found);
    END IF;
    RETURN found;
END
$$
