-- Returns which consecutive messages share a notification: `parts` of deliver(). They go to one address, have one
-- expiry, and take less than 8000 bytes with it.
CREATE FUNCTION {schema}.notification_parts(addresses text[], payloads bytea[], expiries double precision[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts integer[] := array_fill(0, ARRAY[cardinality(addresses)]);
    head integer := 0;
    room integer := 0;
BEGIN
    FOR n IN 1 .. cardinality(addresses) LOOP
        room := room - octet_length(payloads[n]) - 92;  -- an id and a channel
        IF room < 0 OR head = 0 OR addresses[n] <> addresses[head] OR expiries[n] <> expiries[head] THEN
            head := n;
            room := 5600 - octet_length(payloads[n]) - 92;
        END IF;
        parts[head] := n;
    END LOOP;
    RETURN parts;
END
$$
